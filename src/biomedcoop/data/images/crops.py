"""Crops of images for the encoder: the centre crop of the published test transform, and random crops for training.

A random crop depends only on the image's content and a number, so that every method, run and process gets the same crop and it is
computed once.
"""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL import Image

_CROP_FIRST_RATIO = 16
"""Aspect ratio above which only the part inside the centre crop is resized."""

Resize = Literal["shortest", "squash"]
"""How an image becomes a square: its short edge is resized and the centre cut, or the whole is resized, whatever its ratio."""

ASPECT_RATIOS = (3 / 4, 4 / 3)
_ATTEMPTS = 10


def resize_and_crop(image: Image.Image, size: int, resize: Resize = "shortest") -> npt.NDArray[np.uint8]:
    """Resize the short edge to ``size`` (bicubic, antialiased) and cut the centre square, or squash the image to the square.

    The first is equal in every pixel to torchvision's ``Resize(size, BICUBIC)`` + ``CenterCrop(size)`` on Pillow images (the
    published test transform), except beyond an aspect ratio of 16, where only the visible part is resized and rounding may differ.

    Args:
        image: mode RGB, or L for three equal channels.
        size: edge of the result in pixels.
        resize: "shortest" or "squash".

    Returns:
        uint8 [size, size, 3].
    """
    from PIL.Image import Resampling

    if resize == "squash" or _crops_first(*image.size):
        square = image.resize((size, size), Resampling.BICUBIC, box=centre_box(*image.size, size, resize))
        return _rgb(square)
    width, height, left, top = _resized(*image.size, size)
    resized = image.resize((width, height), Resampling.BICUBIC)
    return _rgb(resized.crop((left, top, left + size, top + size)))


def _rgb(image: Image.Image) -> npt.NDArray[np.uint8]:
    return np.array(image if image.mode == "RGB" else image.convert("RGB"), dtype=np.uint8)


def centre_box(width: int, height: int, size: int, resize: Resize = "shortest") -> tuple[float, float, float, float]:
    """Part of an image that :func:`resize_and_crop` keeps: its left, upper, right and lower edge, px of the image.

    Example:
        >>> centre_box(400, 200, 100)
        (100.0, 0.0, 300.0, 200.0)
        >>> centre_box(400, 200, 100, "squash")
        (0, 0, 400, 200)
    """
    if resize == "squash":
        return 0, 0, width, height
    if _crops_first(width, height):
        short, start = min(width, height), abs(width - height) / 2
        return (start, 0, start + short, short) if width > height else (0, start, short, start + short)
    resized_width, resized_height, left, top = _resized(width, height, size)
    across, down = width / resized_width, height / resized_height
    return left * across, top * down, (left + size) * across, (top + size) * down


def _crops_first(width: int, height: int) -> bool:
    return max(width, height) > _CROP_FIRST_RATIO * min(width, height)


def _resized(width: int, height: int, size: int) -> tuple[int, int, int, int]:
    """Width and height of the resized image, and the left and upper edge of the centre square in it, px."""
    long = int(size * max(width, height) / min(width, height))
    new_width, new_height = (long, size) if width > height else (size, long)
    # Python rounds half to even, as torchvision does: an odd margin of 5 px starts at 2, one of 7 px at 4.
    return new_width, new_height, round((new_width - size) / 2), round((new_height - size) / 2)


@dataclass(frozen=True)
class Crops:
    """A family of random crops (torchvision's RandomResizedCrop, with Pillow and its own random numbers).

    Attributes:
        smallest: smallest share of the image's area; the largest share is 1.
        flip: probability of a mirror image.
    """

    smallest: float = 0.08
    flip: float = 0.0

    def box(self, width: int, height: int, draw: random.Random) -> tuple[int, int, int, int]:
        """Left, upper, right and lower edge of a random crop in px; the centre of the image if no drawn crop fits."""
        low, high = (math.log(ratio) for ratio in ASPECT_RATIOS)
        for _ in range(_ATTEMPTS):
            area = width * height * (self.smallest + (1 - self.smallest) * draw.random())
            ratio = math.exp(low + (high - low) * draw.random())
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                left, top = int(draw.random() * (width - w + 1)), int(draw.random() * (height - h + 1))
                return left, top, left + w, top + h
        ratio = min(max(width / height, ASPECT_RATIOS[0]), ASPECT_RATIOS[1])
        w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h

    def cut(self, image: Image.Image, size: int, digest: bytes, number: int) -> npt.NDArray[np.uint8]:
        """Crop ``number`` of an image, resized (bicubic, antialiased).

        Args:
            image: mode RGB, or L for three equal channels.
            size: edge of the result in px.
            digest: of the image's content; with ``number`` it decides the crop.

        Returns:
            uint8 [size, size, 3].
        """
        from PIL import Image

        draw = random.Random(int.from_bytes(self.key(digest, number), "big"))
        cut = image.crop(self.box(*image.size, draw)).resize((size, size), Image.Resampling.BICUBIC)
        if draw.random() < self.flip:
            cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return _rgb(cut)

    @staticmethod
    def key(digest: bytes, number: int) -> bytes:
        """32 bytes that identify crop ``number`` of an image."""
        return hashlib.blake2b(digest + number.to_bytes(8, "big"), digest_size=32).digest()
