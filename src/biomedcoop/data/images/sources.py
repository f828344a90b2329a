"""Convert images in any accepted form to files, bytes, Pillow images and arrays.

An array is one image if its shape allows this. A shape that could be an image with channels first or several grey images is
refused, because a wrong guess would give as many predictions as an image has rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from biomedcoop.data.images.decoders.base import DecodeOptions
from biomedcoop.errors import UserError


@dataclass(frozen=True)
class ImageInFile:
    """One image of a file that may hold several frames or pages.

    Attributes:
        file: a path, or a file's bytes.
        options: number of the frame, and how it is decoded.
    """

    file: Path | bytes
    options: DecodeOptions = field(default_factory=DecodeOptions)

    def __str__(self) -> str:
        """The name in messages: "film.gif#3"."""
        file = self.file if isinstance(self.file, Path) else "image in memory"
        return f"{file}#{self.options.frame}" if self.options.frame else str(file)


def named_file(source: object) -> str | None:
    """The name in messages of an image that is a file or a frame of one; None for any other image."""
    file = source.file if isinstance(source, ImageInFile) else source
    return str(source) if isinstance(file, Path) else None


ImageSource = Path | bytes | ImageInFile | Image.Image | npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
"""One image: a file, a file's bytes, a frame of either, a Pillow image, or an array [H, W], [H, W, 3] (red, green, blue) or
[H, W, 4] (with alpha)."""

KINDS = (
    "a path, a Pillow image, a file's bytes, an open file, or an array or tensor [H, W, 3] (red, green, blue) or [H, W]"
)

CHANNELS = (1, 3, 4)
"""Lengths of the last axis that make an array of three axes one image."""


def as_source(image: Any, where: str = "image") -> ImageSource:
    """Convert one image to an `ImageSource`; its content is checked when it is read.

    Args:
        image: a path, a Pillow image, a file's bytes, an open binary file, or a uint8 or uint16 array or tensor: [H, W],
            [H, W, 3] in the order red, green, blue, or [H, W, 4] with alpha.
        where: name of the image in messages, e.g. "images[3]".

    Raises:
        UserError: it is none of these.
    """
    if image is None or (isinstance(image, float) and image != image):
        raise UserError(f"{where} is missing ({image}); give {KINDS}")
    if isinstance(image, ImageInFile):
        return image
    if isinstance(image, (str, os.PathLike)):
        return _path(image, where)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if isinstance(image, Image.Image):
        return _unread_file(image) or image
    if callable(getattr(image, "read", None)):
        return _read(image, where)
    if _is_array(image):
        array = _array(image, where)
        if array.ndim == 0 and array.dtype.kind in "OU":
            return as_source(array.item(), where)
        if array.dtype.kind in "OUSM" or array.ndim < 2:
            raise UserError(f"{where} is an array of {array.dtype} {list(array.shape)}; give {KINDS}")
        if array.ndim == 3 and array.shape[-1] not in CHANNELS and array.shape[0] in CHANNELS:
            raise UserError(f"{where} {_channels_first(array, image)}")
        return array
    raise UserError(f"{where} is of the type {type(image).__name__}; give {KINDS}")


def as_sources(images: Any, where: str = "images") -> Iterator[ImageSource]:
    """Convert one image or several to `ImageSource` values, in order.

    One image: a path, a Pillow image, bytes, an open file, an array or tensor [H, W] or [H, W, 3] (or [H, W, 1], [H, W, 4]).
    Several: a list, tuple, pandas column or any other iterable of those, a table or array of objects with one column, or an array
    [N, H, W, 3] or [N, H, W]. An array of numbers with three axes is one image if the last one is 1, 3 or 4 long, and refused if
    the first one is 1 or 3 or the last one 2.

    Raises:
        UserError: an element is not an image (the message names its place and type), or an array's shape is ambiguous.
    """
    if isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike, ImageInFile, Image.Image)) or callable(
        getattr(images, "read", None)
    ):
        return iter([as_source(images, where)])
    if hasattr(images, "columns"):
        column = np.asarray(images) if len(images.columns) == 1 else np.empty(0)
        if column.dtype.kind not in "OU":
            raise UserError(
                f"{where} is a whole table ({type(images).__name__}); give the one column that holds the images"
            )
        images = column
    if _is_array(images) and not (hasattr(images, "index") and hasattr(images, "iloc")):  # a pandas column has both
        array = _array(images, where)
        if array.shape == (0,):
            return iter([])
        if array.dtype.kind not in "OU" or array.ndim == 0:
            return _images_of(array, images, where)
        if array.ndim > 2 or array.shape[1:] not in ((), (1,)):
            raise UserError(
                f"{where} is an array of objects {list(array.shape)}; give one with a single axis or column"
            )
        return _each(array.ravel().tolist(), where)
    if isinstance(images, (Mapping, Set)) or not isinstance(images, Iterable):
        return iter([as_source(images, where)])
    return _each(images, where)


def _each(images: Iterable[Any], where: str) -> Iterator[ImageSource]:
    return (as_source(image, f"{where}[{number}]") for number, image in enumerate(images))


def _images_of(array: np.ndarray[Any, Any], given: Any, where: str) -> Iterator[ImageSource]:
    """The image or images in an array of numbers."""
    shape = list(array.shape)
    if array.ndim in (0, 1, 2) or (array.ndim == 3 and shape[-1] in CHANNELS):
        return iter([as_source(array, where)])
    if array.ndim == 3 and (shape[0] in (1, 3) or shape[-1] == 2):
        raise UserError(f"{where} {_channels_first(array, given)}")
    if array.ndim == 4 and shape[1] in CHANNELS and shape[-1] not in CHANNELS:
        raise UserError(f"{where} {_channels_first(array, given)}")
    if array.ndim > 4:
        raise UserError(f"{where} is an array {shape}; give {KINDS}, or a list of those")
    return (as_source(image, f"{where}[{number}]") for number, image in enumerate(array))


def _channels_first(array: np.ndarray[Any, Any], given: Any) -> str:
    """The message for an array whose channels come first, or may come first."""
    shape, axes = list(array.shape), ((1, 2, 0) if array.ndim == 3 else (0, 2, 3, 1))
    transposed = f"{'permute' if _is_tensor(given) else 'transpose'}{axes}"
    wanted = "[H, W, 3] (red, green, blue)" if array.ndim == 3 else "[N, H, W, 3] (red, green, blue)"
    several = "; for several grey images give a list" if array.ndim == 3 else ""
    return f"is an array {shape} whose channels are not last; give {wanted}, for instance x.{transposed}{several}"


def _path(image: str | os.PathLike[str], where: str) -> Path:
    name = os.fsdecode(os.fspath(image))
    if not name.strip():
        raise UserError(f"{where} is an empty path; give {KINDS}")
    return Path(name)


def _read(file: Any, where: str) -> bytes:
    try:
        content = file.read()
        if not content and callable(getattr(file, "seekable", None)) and file.seekable():
            file.seek(0)  # the file was read or written to its end before
            content = file.read()
    except (OSError, ValueError, TypeError) as error:  # ValueError: it is closed, or text that is not UTF-8
        raise UserError(f"{where} is an open file that cannot be read ({error}); open it with mode 'rb'") from error
    if not isinstance(content, bytes):
        raise UserError(f"{where} is a file opened as text; open it with mode 'rb'")
    return content


def _unread_file(image: Image.Image) -> bytes | None:
    """The file of a Pillow image that is not decoded yet, else None; it says more about the samples than Pillow does."""
    file = getattr(image, "fp", None)
    if not isinstance(image, ImageFile.ImageFile) or not image.tile or file is None or image.tell():
        return None
    try:
        place = file.tell()
        file.seek(0)
        content = file.read()
        file.seek(place)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, bytes) else None


def _is_tensor(value: Any) -> bool:
    return type(value).__module__.split(".")[0] == "torch" and hasattr(value, "detach")


def _is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic)) or _is_tensor(value) or hasattr(value, "__array__")


def _array(value: Any, where: str) -> np.ndarray[Any, Any]:
    if _is_tensor(value):
        kind = str(value.dtype).removeprefix("torch.")
        if kind not in ("uint8", "uint16"):
            remedy = "(255 * x).round().byte()" if value.dtype.is_floating_point else "x.byte()"
            raise UserError(
                f"{where} is a tensor of {kind} {list(value.shape)}; give uint8 [H, W, 3] (red, green, blue) without "
                f"normalisation, for instance {remedy}"
            )
        value = value.detach().cpu().numpy()
    return value if isinstance(value, np.ndarray) else np.asarray(value)
