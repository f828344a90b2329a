"""One image file or array -> RGB pixels: decoding, content hash, resize and crop.

A file's bytes are read once and both hashed and decoded from memory, so that a stored feature always belongs to the
content it is filed under. Pillow's process-wide switches are never touched: the pixel limit is ours and is checked from
the header.
"""

from __future__ import annotations

import hashlib
import io
import logging
import stat
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from biomedcoop.data.dataset import ImageSource
from biomedcoop.errors import ImageError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".pgm", ".ppm"})

MAX_PIXELS = 2**26
"""Default pixel limit: 8192 × 8192, below the size at which Pillow itself starts to warn."""

_CROP_FIRST_RATIO = 16
"""Above this aspect ratio the part that the centre crop cannot see is never resized."""

_DECODING_ERRORS = (
    # What Pillow's plugins raise on broken content: the format readers are not of one mind.
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError),
    *(ZeroDivisionError, NotImplementedError, RuntimeError, MemoryError, struct.error, zlib.error),
)

_log = logging.getLogger("biomedcoop")


@dataclass(frozen=True)
class OpenedImage:
    """A decoded image and what its source was like.

    Attributes:
        image: mode RGB, upright.
        digest: 32-byte BLAKE2b of the file's bytes, or of the array's type, shape and values.
        mode: Pillow's mode of the stored image ("L", "I;16", "P", …).
        several_frames: an animation or a multi-page file, of which only the first frame was read.
    """

    image: Image.Image
    digest: bytes
    mode: str
    several_frames: bool = False


def read_image(source: ImageSource, where: str | None = None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode one image to RGB.

    Orientation tags are applied, transparency is put on black, only the first frame of an animation or multi-page file
    is read (a warning says so). Grey values above 8 bit are scaled by the smallest of 8, 10, 12, 14, 16 bits that holds
    the image's largest value; float and 32-bit images by their own smallest and largest finite value.

    Args:
        source: a file, or a uint8/uint16 array [H, W] or [H, W, 3].
        where: the image's name in messages; the path by default.
        max_pixels: larger images are refused from their header, before decoding.

    Raises:
        ImageError: missing, unreadable, truncated, too large, or not an image.
    """
    return read_and_hash(source, where, max_pixels)[0]


def read_and_hash(
    source: ImageSource, where: str | None = None, max_pixels: int = MAX_PIXELS
) -> tuple[Image.Image, bytes]:
    """`read_image` and `content_hash` of one and the same content."""
    opened = open_image(source, where, max_pixels)
    if opened.several_frames:
        warn_of_frames(source, where)
    return opened.image, opened.digest


def warn_of_frames(source: ImageSource, where: str | None = None) -> None:
    """Say that of an animation or a multi-page file only the first frame was read."""
    _log.warning("%s has several frames; only the first one is used", _name(source, where))


def open_image(source: ImageSource, where: str | None = None, max_pixels: int = MAX_PIXELS) -> OpenedImage:
    """`read_image` without the warning, with the content hash and the facts that the audit reports."""
    name = _name(source, where)
    if isinstance(source, np.ndarray):
        return _open_array(source, name, max_pixels)
    content = _read_file(Path(source), name, max_pixels)
    try:
        with Image.open(io.BytesIO(content)) as stored:
            mode = stored.mode
            several = bool(getattr(stored, "is_animated", False))
            stored.seek(0)
            stored.load()
            # Pillow's way of saying "as it is" is a copy, and copies of large images are a quarter of the work
            ImageOps.exif_transpose(stored, in_place=True)
            image = _to_rgb(stored)
    except (*_DECODING_ERRORS, Image.DecompressionBombError) as error:
        raise ImageError(name, _reason(error)) from error
    return OpenedImage(image, _digest(content), mode, several)


def content_hash(source: ImageSource, where: str | None = None) -> bytes:
    """32-byte BLAKE2b of a file's bytes, or of an array's type, shape and values; nothing is decoded.

    Raises:
        ImageError: the file cannot be read.
    """
    return _digest(image_bytes(source, where))


def image_bytes(source: ImageSource, where: str | None = None) -> bytes:
    """The bytes that identify an image: the file's content, or an array's type, shape and values.

    Raises:
        ImageError: the file cannot be read.
    """
    if isinstance(source, np.ndarray):
        values = np.ascontiguousarray(source)
        return f"array {values.dtype.str} {values.shape} ".encode() + values.tobytes()
    return _read_file(Path(source), _name(source, where), max_pixels=None)


def resize_and_crop(image: Image.Image, size: int) -> npt.NDArray[np.uint8]:
    """Resize the short edge to ``size`` (bicubic, antialiased) and cut the centre square.

    Equal in every pixel to torchvision's ``Resize(size, BICUBIC)`` + ``CenterCrop(size)`` on Pillow images (the
    published test transform), except beyond an aspect ratio of 16, where only the visible part is resized and rounding
    may differ.

    Args:
        image: mode RGB.
        size: edge of the result in pixels.

    Returns:
        uint8 [size, size, 3].
    """
    width, height = image.size
    short, long = min(width, height), max(width, height)
    if long > _CROP_FIRST_RATIO * short:
        start = (long - short) / 2
        box = (start, 0, start + short, short) if width > height else (0, start, short, start + short)
        square = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
        return np.array(square, dtype=np.uint8)
    resized_long = int(size * long / short)
    new_width, new_height = (resized_long, size) if width > height else (size, resized_long)
    resized = image.resize((new_width, new_height), Image.Resampling.BICUBIC)
    # Python's round-half-to-even, as torchvision: an odd margin of 5 px starts at 2, one of 7 px at 4.
    left, top = round((new_width - size) / 2), round((new_height - size) / 2)
    return np.array(resized.crop((left, top, left + size, top + size)), dtype=np.uint8)


def _name(source: ImageSource, where: str | None) -> str:
    return where or ("array" if isinstance(source, np.ndarray) else str(source))


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=32).digest()


def _read_file(path: Path, name: str, max_pixels: int | None) -> bytes:
    """The file's bytes, after its header has shown an image of at most ``max_pixels`` (None: any content)."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(name, "is a folder, not an image")
        if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device might never end
            raise ImageError(name, "is not a regular file")
        if status.st_size == 0:
            raise ImageError(name, "the file is empty (0 bytes); copy it again or remove it")
        with path.open("rb") as file:
            if max_pixels is not None:
                _check_header(file, name, max_pixels)
                file.seek(0)
            return file.read()
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(name, "there is no such file") from error
    except PermissionError as error:
        raise ImageError(name, "no permission to read it; change its access rights") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise ImageError(name, f"cannot be read ({error})") from error


def _check_header(file: BinaryIO, name: str, max_pixels: int) -> None:
    try:
        with Image.open(file) as header:
            width, height = header.size
    except (*_DECODING_ERRORS, Image.DecompressionBombError) as error:
        raise ImageError(name, _reason(error)) from error
    _check_size(width, height, name, max_pixels)


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageError(
            name, f"{width} × {height} pixels are more than the limit of {max_pixels:,}; make the image smaller"
        )


def _reason(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "the content is no image that can be read, whatever the suffix says; convert it to PNG or remove it"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more pixels than the limit of {MAX_PIXELS:,}; make the image smaller"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    text = " ".join(str(error).split()) or type(error).__name__
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return f"the file is truncated ({text}); copy it again or remove it"
    return f"the image is damaged or of a kind that cannot be read ({text}); convert it to PNG or remove it"


def _open_array(pixels: npt.NDArray[Any], name: str, max_pixels: int) -> OpenedImage:
    grey, colour = pixels.ndim == 2, pixels.ndim == 3 and pixels.shape[-1] == 3
    if pixels.dtype.type not in (np.uint8, np.uint16) or not (grey or colour) or pixels.size == 0:
        raise ImageError(
            name, f"an array of {pixels.dtype} {list(pixels.shape)}; give uint8 or uint16 of shape [H, W] or [H, W, 3]"
        )
    _check_size(pixels.shape[1], pixels.shape[0], name, max_pixels)
    eight_bit = pixels.astype(np.uint8, copy=False) if pixels.dtype.itemsize == 1 else _scale_integers(pixels)
    image = Image.fromarray(np.ascontiguousarray(eight_bit)).convert("RGB")
    mode = ("L" if grey else "RGB") if pixels.dtype.itemsize == 1 else ("I;16" if grey else "RGB;16")
    return OpenedImage(image, _digest(image_bytes(pixels)), mode)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray(_scale_integers(np.asarray(image))).convert("RGB")
    if image.mode == "I":  # 32-bit TIFF; before Pillow 10.3 also 16-bit PNG
        values = np.asarray(image)
        within_16_bit = values.min() >= 0 and values.max() <= 0xFFFF
        return Image.fromarray(_scale_integers(values) if within_16_bit else _scale_linearly(values)).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(_scale_linearly(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _scale_integers(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Values 0..65535 to 0..255 by the smallest usual bit depth that holds them, rounded."""
    largest = int(values.max())
    bits = next(depth for depth in (8, 10, 12, 14, 16) if largest < 2**depth)
    top = 2**bits - 1
    scaled: npt.NDArray[np.uint8] = ((values.astype(np.uint32) * 255 + top // 2) // top).astype(np.uint8)
    return scaled


def _scale_linearly(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Smallest..largest finite value to 0..255, rounded; what is not finite becomes 0 (-inf, NaN) or 255 (inf)."""
    exact = values.astype(np.float64)
    finite = exact[np.isfinite(exact)]
    if not finite.size:
        raise ValueError("no pixel has a finite value")
    low, high = float(finite.min()), float(finite.max())
    unit = (np.nan_to_num(exact, nan=low, posinf=high, neginf=low) - low) / ((high - low) or 1.0)
    scaled: npt.NDArray[np.uint8] = np.rint(unit * 255).astype(np.uint8)
    return scaled
