"""Read one image as upright 8-bit RGB pixels.

All image formats pass through this module: the decoder (``decoders/``) is chosen by the file's content, not by its suffix.
Pillow's process-wide switches are never touched: the pixel limit is ours and is checked from the header.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from biomedcoop.data.images.arrays import decode_array
from biomedcoop.data.images.content import digest, identity_of, image_bytes, source_name, stored_bytes
from biomedcoop.data.images.decoders import find_decoder
from biomedcoop.data.images.decoders.base import START_BYTES, Decoded, Decoder, Refused
from biomedcoop.data.images.facts import ImageFacts
from biomedcoop.data.images.rgb import is_one_colour, to_rgb
from biomedcoop.data.images.sources import ImageInFile, ImageSource
from biomedcoop.errors import ImageError

MAX_PIXELS = 2**26
"""Default pixel limit: 8192 × 8192, below the size at which Pillow itself starts to warn."""

DECODING_ERRORS = (
    # Exceptions that the readers of the formats raise on broken content.
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError),
    *(ZeroDivisionError, NotImplementedError, RuntimeError, MemoryError, struct.error, zlib.error),
    Image.DecompressionBombError,
)


@dataclass(frozen=True)
class OpenedImage:
    """A decoded image and properties of its source.

    Attributes:
        image: mode RGB, upright.
        digest: 32-byte BLAKE2b hash of the file's bytes and its decode options, or of the array's type, shape and values.
        mode: Pillow's mode of the stored image ("L", "P", …); above 8 bits with the bits of a sample ("I;16", "RGB;16", …).
        facts: facts about the image for the user.
        grey: it was decoded to one channel, so that its three are equal.
    """

    image: Image.Image
    digest: bytes
    mode: str
    facts: ImageFacts
    grey: bool


def read_image(source: ImageSource, where: str | None = None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode one image to RGB.

    The stated properties of the samples are honoured, or the file is refused: inversion, palette, signed and float samples,
    planes, depth, alpha. Orientation tags are applied, and transparency is put on black. Only the first frame of an animation
    or multi-page file is read unless the source names another. Values above 8 bits without a stated depth are scaled by the
    smallest of 8, 10, 12, 14, 16 bits that holds the image's largest value. Signed, float and 32-bit images are scaled by
    their own smallest and largest finite value.

    Args:
        source: a file, a file's bytes, a frame of either (`ImageInFile`), a Pillow image, or a uint8/uint16 array [H, W],
            [H, W, 3] (red, green, blue) or [H, W, 4] (with alpha).
        where: the image's name in messages; the path by default.
        max_pixels: larger images are refused from their header, before decoding.

    Raises:
        ImageError: the image is missing, unreadable, truncated or too large, or it is not an image.
    """
    return open_image(source, where, max_pixels).image


def open_image(source: ImageSource, where: str | None = None, max_pixels: int = MAX_PIXELS) -> OpenedImage:
    """`read_image` with the content hash and the facts that an audit reports."""
    name = source_name(source, where)
    try:
        decoded, identity = _decode(source, name, max_pixels)
        rendered, mode = to_rgb(decoded)
    except ImageError:
        raise
    except DECODING_ERRORS as error:
        raise ImageError(name, _reason(error)) from error
    facts = ImageFacts(
        rendered.depth,
        rendered.guessed,
        is_one_colour(rendered.image),
        rendered.transparent,
        decoded.several_frames,
        decoded.window,
        **decoded.marks,
    )
    grey = isinstance(decoded.pixels, Image.Image) and decoded.pixels.mode == "L"
    return OpenedImage(rendered.image, digest(identity), mode, facts, grey)


def _decode(source: ImageSource, name: str, max_pixels: int) -> tuple[Decoded, bytes]:
    """The image, and the bytes that identify it (`content.image_bytes`)."""
    if isinstance(source, np.ndarray):
        decoded = decode_array(source, name)
        _check_size(source.shape[1], source.shape[0], name, max_pixels)
        return decoded, image_bytes(source, name)
    if isinstance(source, Image.Image):
        _check_size(*source.size, name, max_pixels)
        orientation = source.getexif().get(ExifTags.Base.Orientation, 1)
        return Decoded(source.copy(), source.mode, orientation), image_bytes(source, name)
    stored = source if isinstance(source, ImageInFile) else ImageInFile(source)
    content = stored_bytes(stored, name, partial(_check_header, name=name, max_pixels=max_pixels))
    decoded = _decoder_of(content[:START_BYTES]).decode(content, stored.options)
    return decoded, identity_of(content, stored.options)


def _check_header(file: BinaryIO, name: str, max_pixels: int) -> None:
    """Refuse an unknown format or too many pixels before the whole file is read."""
    try:
        decoder = _decoder_of(file.read(START_BYTES))
        file.seek(0)
        width, height = decoder.size(file)
    except DECODING_ERRORS as error:
        raise ImageError(name, _reason(error)) from error
    _check_size(width, height, name, max_pixels)


def _decoder_of(start: bytes) -> Decoder:
    decoder = find_decoder(start)
    if decoder is None and start.startswith(b"PK\x03\x04"):
        raise Refused("it is a zip archive; name it .zip, or if that is its name, it is damaged: copy it again")
    if decoder is None:
        raise UnidentifiedImageError("no decoder knows it")
    return decoder


def megapixels(pixels: int) -> str:
    """A limit on pixels as messages and options state it, in megapixels of 2²⁰: ``64 megapixels``."""
    return f"{pixels / 2**20:.3g} megapixels"


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageError(
            name,
            f"{width} × {height} pixels are more than the limit of {megapixels(max_pixels)}; make the image smaller",
        )


def _reason(error: BaseException) -> str:
    if isinstance(error, Refused):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return "the content is not a readable image, whatever the suffix says; convert it to PNG or remove it"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more pixels than the limit of {megapixels(MAX_PIXELS)}; make the image smaller"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it; make the image smaller"
    text = " ".join(str(error).split()) or type(error).__name__
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return f"the file is truncated ({text}); copy it again or remove it"
    return f"the image is damaged or of a kind that cannot be read ({text}); convert it to PNG or remove it"
