"""The images in uploaded files: frames of DICOM files, members of zip archives. Sizes are checked before anything is decoded."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import PurePosixPath
from typing import NamedTuple

from PIL import Image

from biomedcoop.data.archives import SUFFIX
from biomedcoop.data.images.decoders import find_decoder
from biomedcoop.data.images.decoders.base import START_BYTES, DecodeOptions, Decoder
from biomedcoop.data.images.decoders.dicom import DicomDecoder
from biomedcoop.data.images.decoders.volume import VolumeDecoder
from biomedcoop.data.images.reading import DECODING_ERRORS, megapixels
from biomedcoop.data.images.sources import ImageInFile
from biomedcoop.data.images.stacks import ALL, MIDDLE, Reading, facts_of
from biomedcoop.deploy.server.limits import Limits, RefusedFile, RefusedRequest
from biomedcoop.deploy.server.uploads import Upload

MOST_DIRECTORY = 2**22
"""Largest size of the table of contents of a zip archive, bytes; Python keeps about twenty times as much of it."""

_END, _END_SIZE, _LONG_LOCATOR = b"PK\x05\x06", 22, b"PK\x06\x07"
_ZIPPED = b"PK\x03\x04", _END
_DEFLATED = b"1.2.840.10008.1.2.1.99"
"""Transfer syntax of a DICOM file that is deflated as a whole, so that its header says nothing of its size."""


class UploadedImage(NamedTuple):
    """An image of a request.

    Attributes:
        name: name of its file, with "#3" for a frame of several.
        source: the image, or why there is none.
        alone: its file holds no other frame.
    """

    name: str
    source: ImageInFile | RefusedFile
    alone: bool = True


def images_in(
    uploads: Iterable[Upload], reading: Reading, limits: Limits, *, skip_bad: bool = False
) -> tuple[list[UploadedImage], int]:
    """The images of uploaded files, in order, and the number of members of zip archives that are no images.

    Args:
        skip_bad: a file that cannot be used is an image without a source.

    Raises:
        RefusedRequest: there is no image, a file is none (unless ``skip_bad``), or a limit of the request is exceeded.
    """
    found: list[UploadedImage] = []
    left_out = 0
    room = limits.request_bytes

    def add(upload: Upload) -> None:
        try:
            found.extend(_frames(upload, reading, limits))
        except RefusedFile as error:
            if not skip_bad:
                raise
            found.append(UploadedImage(error.name, error))
        _check_number(found, limits)

    for upload in uploads:
        if not upload.content.startswith(_ZIPPED):
            add(upload)
            continue
        try:
            for member in _members(upload, limits, room):
                room -= len(member.content)
                zipped = member.name.lower().endswith(SUFFIX)
                if not zipped and find_decoder(member.content[:START_BYTES]) is None:
                    left_out += 1
                else:
                    add(member)
        except RefusedFile as error:
            if not skip_bad:
                raise
            found.append(UploadedImage(error.name, error))
    if not found:
        raise RefusedRequest(422, "the request holds no image; send at least one file that is an image")
    return found, left_out


def _check_number(found: list[UploadedImage], limits: Limits) -> None:
    if len(found) > limits.images:
        raise RefusedRequest(
            413,
            f"the request holds more than {limits.images} images (frames count); send fewer at once, or choose with ?frame=middle",
        )


def _frames(upload: Upload, reading: Reading, limits: Limits) -> Iterator[UploadedImage]:
    """The images of one file."""
    name, content = upload
    if not content:
        raise RefusedFile(422, name, "the file is empty; send it again")
    decoder = find_decoder(content[:START_BYTES])
    if decoder is None and content.startswith(_ZIPPED):
        raise RefusedFile(415, name, "a zip archive inside another is not read; send the files in it")
    if decoder is None:
        raise RefusedFile(415, name, "not an image of a known format; send PNG, JPEG, TIFF, DICOM, … or a zip archive")
    if isinstance(decoder, VolumeDecoder):
        raise RefusedFile(415, name, f"{decoder.name} volumes are not read by the server; use 'biomedcoop predict'")
    if isinstance(decoder, DicomDecoder) and _DEFLATED in content[:4096]:
        raise RefusedFile(415, name, "deflated DICOM is not read by the server; save it without deflation")
    check_pixels(upload, decoder, limits)
    known = facts_of(content)
    if not known.windowed:
        yield UploadedImage(name, ImageInFile(content))
        return
    for number in _chosen(known.frames, reading.frame, name):
        shown = f"{name}#{number}" if known.frames > 1 else name
        yield UploadedImage(shown, ImageInFile(content, DecodeOptions(number, reading.window)), known.frames == 1)


def check_pixels(upload: Upload, decoder: Decoder, limits: Limits) -> None:
    """Refuse an image by the size in its header; of a header that cannot be read, the decoding says what is wrong."""
    try:
        width, height = decoder.size(BytesIO(upload.content))
    except Image.DecompressionBombError:
        width = height = limits.pixels
    except DECODING_ERRORS:
        return
    if width * height > limits.pixels:
        raise RefusedFile(
            413,
            upload.name,
            f"it has more pixels than the limit of {megapixels(limits.pixels)}; make the image smaller",
        )


def _chosen(frames: int, choice: str, name: str) -> Iterable[int]:
    if choice == ALL or frames == 1:
        return range(frames)
    number = frames // 2 if choice == MIDDLE else int(choice)
    if number >= frames:
        raise RefusedFile(422, name, f"frame {number} was asked for, but it has {frames}, numbered from 0")
    return [number]


def _members(upload: Upload, limits: Limits, room: int) -> Iterator[Upload]:
    """The files of a zip archive, each unpacked as far as the limit leaves room."""
    _check_directory(upload)
    try:
        with zipfile.ZipFile(BytesIO(upload.content)) as archive:
            for info in archive.infolist():
                path = PurePosixPath(info.filename.replace("\\", "/"))
                if info.is_dir() or path.name.startswith(".") or "__MACOSX" in path.parts:
                    continue
                name = f"{upload.name}/{path}"
                if info.flag_bits & 1:
                    raise RefusedFile(422, upload.name, "the archive is encrypted; send it without a password")
                with archive.open(info) as member:
                    content = member.read(room + 1)  # the size in the archive's table may be wrong
                if len(content) > room:
                    raise RefusedRequest(
                        413,
                        f"{upload.name}: it unpacks to more than {limits.request_bytes / 2**20:g} MiB; send fewer images",
                    )
                room -= len(content)
                yield Upload(name, content)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, ValueError, RuntimeError) as error:
        raise RefusedFile(
            422, upload.name, f"the zip archive is damaged ({type(error).__name__}); send it again"
        ) from None


def _check_directory(upload: Upload) -> None:
    """Refuse an archive whose table of contents would fill the memory."""
    end = upload.content.rfind(_END)
    if end < 0 or len(upload.content) < end + _END_SIZE:
        raise RefusedFile(422, upload.name, "the zip archive is truncated; send it again")
    (size,) = struct.unpack_from("<I", upload.content, end + 12)
    if size > MOST_DIRECTORY or upload.content[max(0, end - 20) :].startswith(_LONG_LOCATOR):
        raise RefusedRequest(413, f"{upload.name}: the zip archive has too many entries; send fewer images")
