"""The bytes of an image; they are read once, then hashed and decoded from memory, so that a hash belongs to the decoded image."""

from __future__ import annotations

import hashlib
import io
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from biomedcoop.data.images.sources import ImageInFile, ImageSource
from biomedcoop.errors import ImageError

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
        return file_bytes(source.file, name) + source.options.key
    return file_bytes(source, name)


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
    except FileNotFoundError as error:
        raise ImageError(name, "there is no such file") from error
    except PermissionError as error:
        raise ImageError(name, "no permission to read it; change its access rights") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise ImageError(name, f"cannot be read ({error})") from error
