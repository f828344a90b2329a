"""The bytes of an image; they are read once, then hashed and decoded from memory, so that a hash belongs to the decoded image."""

from __future__ import annotations

import hashlib
import io
import stat
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from biomedcoop.data import archives
from biomedcoop.data.images.decoders.base import DecodeOptions
from biomedcoop.data.images.sources import ImageInFile, ImageSource
from biomedcoop.errors import ImageError, UserError

_EMPTY = "the file is empty (0 bytes); copy it again or remove it"


def content_hash(source: ImageSource, where: str | None = None) -> bytes:
    """32-byte BLAKE2b hash of the bytes that identify an image (`image_bytes`); nothing is decoded.

    Raises:
        ImageError: the file cannot be read.
    """
    return digest(image_bytes(source, where))


def image_bytes(source: ImageSource, where: str | None = None) -> bytes:
    """The bytes that identify an image: a file's content and the options it is decoded with, or an array's type, shape, values.

    Raises:
        ImageError: the file cannot be read.
    """
    name = source_name(source, where)
    if isinstance(source, np.ndarray):
        values = np.ascontiguousarray(unmasked(source, name))
        return f"array {values.dtype.str} {values.shape} ".encode() + values.tobytes()
    if isinstance(source, Image.Image):
        palette = source.getpalette("RGBA") if source.mode in ("P", "PA") else None
        orientation = source.getexif().get(ExifTags.Base.Orientation)
        about = (source.mode, source.size, source.info.get("transparency"), palette, orientation)
        return f"Pillow {about} ".encode() + source.tobytes()
    if isinstance(source, ImageInFile):
        return identity_of(stored_bytes(source, name), source.options)
    return file_bytes(source, name)


def stored_bytes(source: ImageInFile, name: str, check: Callable[[BinaryIO], None] | None = None) -> bytes:
    """:func:`file_bytes` of the file of an image; the last file with several frames is kept, so that it is read once for them."""
    if not isinstance(source.file, Path) or not source.options.frame:
        return file_bytes(source.file, name, check)
    try:
        with _KEEPING:
            content = _kept(source.file, *archives.stamp(source.file))
    except (OSError, UserError):
        return file_bytes(source.file, name, check)  # which says what is wrong
    if check is not None:
        check(io.BytesIO(content))
    return content


_KEEPING = Lock()


@lru_cache(maxsize=1)
def _kept(file: Path, *_: int) -> bytes:
    return file_bytes(file, str(file))


def identity_of(content: bytes, options: DecodeOptions) -> bytes:
    """The bytes that identify an image of a file; a short form where options select it, since many images may share the file."""
    return _content_digest(content) + options.key if options.key else content


@lru_cache(maxsize=1)
def _content_digest(content: bytes) -> bytes:
    return digest(content)


def digest(identity: bytes) -> bytes:
    """32-byte BLAKE2b hash."""
    return hashlib.blake2b(identity, digest_size=32).digest()


def source_name(source: ImageSource, where: str | None) -> str:
    """An image's name in messages: ``where``, else its path, else its type."""
    kinds = {np.ndarray: "array", bytes: "image in memory", Image.Image: "Pillow image"}
    return where or next((word for kind, word in kinds.items() if isinstance(source, kind)), str(source))


def unmasked(pixels: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """An array as a plain array without a mask.

    Raises:
        ImageError: some of its values are masked.
    """
    if np.ma.is_masked(pixels):
        what = f"an array of {pixels.dtype} {list(pixels.shape)}"
        raise ImageError(name, f"{what}; some values are masked; fill them first: array.filled(0)")
    return np.asarray(pixels)


def file_bytes(file: Path | bytes, name: str, check: Callable[[BinaryIO], None] | None = None) -> bytes:
    """All bytes of a file.

    Args:
        file: a path, or the bytes themselves.
        name: name of the image in messages.
        check: called with the open file before it is read whole.

    Raises:
        ImageError: the file is missing, empty, not a regular file or not readable, or ``check`` raises it.
    """
    if isinstance(file, bytes):
        if not file:
            raise ImageError(name, _EMPTY)
        if check is not None:
            check(io.BytesIO(file))
        return file
    try:
        if (found := archives.inside(file)) is not None and found[1]:
            if archives.stamp(file).size == 0:
                raise ImageError(name, _EMPTY)
            with archives.opened(file) as member:
                if check is not None:
                    try:
                        check(member)
                    except ImageError:
                        member.seek(0)
                        while member.read(2**20):  # where the archive is damaged, it fails here with that reason
                            pass
                        raise
                    member.seek(0)
                return member.read()
        status = file.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(name, "is a folder, not an image")
        if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device might never end
            raise ImageError(name, "is not a regular file")
        if status.st_size == 0:
            raise ImageError(name, _EMPTY)
        with file.open("rb") as opened:
            if check is not None:
                check(opened)
                opened.seek(0)
            return opened.read()
    except ImageError:
        raise
    except UserError as error:  # of an archive
        raise ImageError(name, str(error).removeprefix(f"{file}: ")) from error
    except FileNotFoundError as error:
        raise ImageError(name, "there is no such file") from error
    except PermissionError as error:
        raise ImageError(name, "no permission to read it; change its access rights") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise ImageError(name, f"cannot be read ({error})") from error
