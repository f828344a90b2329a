"""One image -> RGB pixels: decoding, content hash, resize and crop.

A file's bytes are read once and both hashed and decoded from memory, so that a stored feature always belongs to the
content it is filed under. Pillow's process-wide switches are never touched: the pixel limit is ours and is checked from
the header. Ordinary 8-bit files are Pillow's; what it would read wrong goes through the module of its format
(``tiff.py``, ``png.py``, ``pnm.py``, ``jpeg2000.py``) and the one set of rules in ``samples.py``.
"""

from __future__ import annotations

import hashlib
import io
import stat
import struct
import zlib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from biomedcoop.data.dataset import ImageSource
from biomedcoop.data.images import jpeg2000, png, pnm, tiff
from biomedcoop.data.images.facts import ImageFacts
from biomedcoop.data.images.samples import Rendered, Samples, render
from biomedcoop.errors import ImageError

FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "PPM": (".pgm", ".ppm", ".pbm", ".pnm", ".pfm"),
    "JPEG2000": (".jp2", ".j2k", ".jpf", ".jpx", ".jpc", ".j2c"),
    "TGA": (".tga",),
    "AVIF": (".avif",),
}
"""Pillow's formats that are read, by content, and the suffixes by which a folder's files are known as images."""

IMAGE_SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)

MAX_PIXELS = 2**26
"""Default pixel limit: 8192 × 8192, below the size at which Pillow itself starts to warn."""

_CROP_FIRST_RATIO = 16
"""Above this aspect ratio the part that the centre crop cannot see is never resized."""

_DECODING_ERRORS = (
    # What the format readers raise on broken content: they are not of one mind.
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError),
    *(ZeroDivisionError, NotImplementedError, RuntimeError, MemoryError, struct.error, zlib.error),
)

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by its orientation tag."""

_EMPTY = "the file is empty (0 bytes); copy it again or remove it"

_ARRAYS = "give uint8 or uint16 of shape [H, W], [H, W, 3] (red, green, blue) or [H, W, 4] (with alpha); "


@dataclass(frozen=True)
class OpenedImage:
    """A decoded image and what its source was like.

    Attributes:
        image: mode RGB, upright.
        digest: 32-byte BLAKE2b of the file's bytes, or of the array's type, shape and values.
        mode: Pillow's mode of the stored image ("L", "P", …); above 8 bits with the bits of a sample ("I;16", "RGB;16", …).
        facts: what a user should know of it.
    """

    image: Image.Image
    digest: bytes
    mode: str
    facts: ImageFacts


def read_image(source: ImageSource, where: str | None = None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode one image to RGB.

    What the file states of its samples is honoured, or the file is refused: inversion, palette, signed and float samples,
    planes, depth, alpha. Orientation tags are applied, transparency is put on black, only the first frame of an animation or
    multi-page file is read. Values above 8 bits that state no depth are scaled by the smallest of 8, 10, 12, 14, 16 bits that
    holds the image's largest value; signed, float and 32-bit images by their own smallest and largest finite value.

    Args:
        source: a file, a file's bytes, a Pillow image, or a uint8/uint16 array [H, W], [H, W, 3] (red, green, blue) or
            [H, W, 4] (with alpha).
        where: the image's name in messages; the path by default.
        max_pixels: larger images are refused from their header, before decoding.

    Raises:
        ImageError: missing, unreadable, truncated, too large, or not an image.
    """
    return open_image(source, where, max_pixels).image


def read_and_hash(
    source: ImageSource, where: str | None = None, max_pixels: int = MAX_PIXELS
) -> tuple[Image.Image, bytes]:
    """`read_image` and `content_hash` of one and the same content."""
    opened = open_image(source, where, max_pixels)
    return opened.image, opened.digest


def open_image(source: ImageSource, where: str | None = None, max_pixels: int = MAX_PIXELS) -> OpenedImage:
    """`read_image` with the content hash and the facts that an audit reports."""
    name = _name(source, where)
    if isinstance(source, np.ndarray):
        decoded = _decode_array(source, name, max_pixels)
        return _opened(decoded, _digest(image_bytes(source, where)))
    try:
        if isinstance(source, Image.Image):
            _check_size(*source.size, name, max_pixels)
            upright = ImageOps.exif_transpose(source)
            return _opened(_by_pillow(upright, upright.mode), _digest(image_bytes(source, where)))
        content = _content(source, name, max_pixels)
        return _opened(_decode(content), _digest(content))
    except ImageError:
        raise
    except (*_DECODING_ERRORS, Image.DecompressionBombError) as error:
        raise ImageError(name, _reason(error)) from error


@dataclass(frozen=True)
class _Decoded:
    rendered: Rendered
    mode: str
    several_frames: bool = False


def _opened(decoded: _Decoded, digest: bytes) -> OpenedImage:
    rendered = decoded.rendered
    one_colour = _is_one_colour(rendered.image)
    facts = ImageFacts(rendered.depth, rendered.guessed, one_colour, rendered.transparent, decoded.several_frames)
    return OpenedImage(rendered.image, digest, decoded.mode, facts)


def _decode(content: bytes) -> _Decoded:
    """A file's content -> an upright RGB image; the first of several frames."""
    if tiff.is_tiff(content) and not tiff.is_plain(content):
        return _deep(*tiff.read(content))
    try:
        opened = Image.open(io.BytesIO(content), formats=_formats())
    except UnidentifiedImageError:
        if not tiff.is_tiff(content):
            raise
        return _deep(*tiff.read(content))
    with opened as stored:
        mode, several = stored.mode, bool(getattr(stored, "is_animated", False))
        stored.seek(0)
        if stored.format == "PPM" and pnm.is_deep(content):
            return _deep(pnm.read(content))
        stored.load()
        deep = None
        if png.is_deep(content):
            deep = png.read(content, stored)
        elif stored.format == "JPEG2000":
            deep = jpeg2000.read(content, stored)
        if deep is not None:
            return _deep(deep, stored.getexif().get(tiff.ORIENTATION, 1), several)
        png.complete_transparency(content, stored)
        # Pillow's way of saying "as it is" is a copy, and copies of large images are a quarter of the work
        ImageOps.exif_transpose(stored, in_place=True)
        return _by_pillow(stored, mode, several)


def _deep(samples: Samples, orientation: int = 1, several_frames: bool = False) -> _Decoded:
    rendered = render(samples)
    if orientation in _TURNS:
        rendered = replace(rendered, image=rendered.image.transpose(_TURNS[orientation]))
    return _Decoded(rendered, samples.mode, several_frames)


def _by_pillow(image: Image.Image, mode: str, several_frames: bool = False) -> _Decoded:
    """An image as Pillow holds it -> RGB in front of black."""
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image)
        if image.mode == "I" and values.min() >= 0 and values.max() <= 0xFFFF:
            values = values.astype(np.uint16)  # Pillow's mode for whole numbers of any kind
        return _deep(Samples(values), several_frames=several_frames)
    if image.mode in ("LAB", "HSV"):
        raise ValueError(f"colours of the kind {image.mode} are not read")
    transparent = False
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        transparent = layer.getchannel("A").getextrema() == (0, 0)
        image = Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer)
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    return _Decoded(Rendered(rgb, 8, False, transparent), mode, several_frames)


def _is_one_colour(image: Image.Image) -> bool:
    """Whether all pixels are the same; a few of them mostly tell."""
    width, height = image.size
    first = image.getpixel((0, 0))
    few = ((width * i // 16, height * (i * 7 % 16) // 16) for i in range(1, 16))
    if any(image.getpixel(place) != first for place in few):
        return False
    return bool(np.all(np.asarray(image) == first))


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
        values = np.ascontiguousarray(_unmasked(source, _name(source, where)))
        return f"array {values.dtype.str} {values.shape} ".encode() + values.tobytes()
    if isinstance(source, Image.Image):
        palette = source.getpalette("RGBA") if source.mode in ("P", "PA") else None
        about = (
            source.mode,
            source.size,
            source.info.get("transparency"),
            palette,
            source.getexif().get(tiff.ORIENTATION),
        )
        return f"Pillow {about} ".encode() + source.tobytes()
    return _content(source, _name(source, where), max_pixels=None)


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


@cache
def _formats() -> tuple[str, ...]:
    """Those of the formats that the installed Pillow was built with; asking it for another is an error."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _name(source: ImageSource, where: str | None) -> str:
    kinds = {np.ndarray: "array", bytes: "image in memory", Image.Image: "Pillow image"}
    return where or next((word for kind, word in kinds.items() if isinstance(source, kind)), str(source))


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=32).digest()


def _content(source: Path | bytes, name: str, max_pixels: int | None) -> bytes:
    if not isinstance(source, bytes):
        return _read_file(Path(source), name, max_pixels)
    if not source:
        raise ImageError(name, _EMPTY)
    if max_pixels is not None:
        _check_header(io.BytesIO(source), name, max_pixels)
    return source


def _read_file(path: Path, name: str, max_pixels: int | None) -> bytes:
    """The file's bytes, after its header has shown an image of at most ``max_pixels`` (None: any content)."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(name, "is a folder, not an image")
        if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device might never end
            raise ImageError(name, "is not a regular file")
        if status.st_size == 0:
            raise ImageError(name, _EMPTY)
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
        try:
            with Image.open(file, formats=_formats()) as header:
                width, height = header.size
        except UnidentifiedImageError:
            file.seek(0)
            if not tiff.is_tiff(file.read(4)):
                raise
            width, height = tiff.size(file)
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


def _decode_array(pixels: npt.NDArray[Any], name: str, max_pixels: int) -> _Decoded:
    described = f"an array of {pixels.dtype} {list(pixels.shape)}; "
    pixels = _unmasked(pixels, name)
    colours = pixels.shape[-1] if pixels.ndim == 3 else 1
    if pixels.ndim not in (2, 3) or colours not in (1, 3, 4) or pixels.size == 0:
        way = (
            "channels come last: numpy.moveaxis(array, 0, -1)"
            if pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4)
            else ""
        )
        raise ImageError(name, (described + _ARRAYS + way).rstrip("; "))
    if pixels.dtype.type not in (np.uint8, np.uint16):
        raise ImageError(name, described + _ARRAYS + _way_to_whole(pixels.dtype))
    _check_size(pixels.shape[1], pixels.shape[0], name, max_pixels)
    if pixels.dtype.itemsize == 1:
        image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.ndim == 3 and colours == 1 else pixels))
        return _by_pillow(image, image.mode)
    alpha = pixels[..., 3] if colours == 4 else None
    values = pixels if pixels.ndim == 2 else pixels[..., 0] if colours == 1 else pixels[..., :3]
    return _deep(Samples(values, alpha))


def _unmasked(pixels: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    if np.ma.is_masked(pixels):
        what = f"an array of {pixels.dtype} {list(pixels.shape)}"
        raise ImageError(name, f"{what}; some values are masked; fill them first: array.filled(0)")
    return np.asarray(pixels)


def _way_to_whole(dtype: np.dtype[Any]) -> str:
    if dtype.kind == "f":
        return "values from 0 to 1 become that by (255 * array).round().astype('uint8')"
    if dtype.kind == "b":
        return "truth values become that by array.astype('uint8') * 255"
    return "values from 0 to 255 become that by array.astype('uint8')"
