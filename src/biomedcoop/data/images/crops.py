"""Crops of images for the encoder: the centre crop of the published test transform, and random crops for training.

A random crop depends only on the image's content and a number, so that every method, run and process gets the same crop and it is
computed once.
"""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL import Image

_CROP_FIRST_RATIO = 16
"""Aspect ratio above which only the part inside the centre crop is resized."""

ASPECT_RATIOS = (3 / 4, 4 / 3)
_ATTEMPTS = 10


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
    from PIL.Image import Resampling

    width, height = image.size
    short, long = min(width, height), max(width, height)
    if long > _CROP_FIRST_RATIO * short:
        start = (long - short) / 2
        box = (start, 0, start + short, short) if width > height else (0, start, short, start + short)
        square = image.resize((size, size), Resampling.BICUBIC, box=box)
        return np.array(square, dtype=np.uint8)
    resized_long = int(size * long / short)
    new_width, new_height = (resized_long, size) if width > height else (size, resized_long)
    resized = image.resize((new_width, new_height), Resampling.BICUBIC)
    # Python rounds half to even, as torchvision does: an odd margin of 5 px starts at 2, one of 7 px at 4.
    left, top = round((new_width - size) / 2), round((new_height - size) / 2)
    return np.array(resized.crop((left, top, left + size, top + size)), dtype=np.uint8)


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
            image: mode RGB.
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
        return np.array(cut, dtype=np.uint8)

    @staticmethod
    def key(digest: bytes, number: int) -> bytes:
        """32 bytes that identify crop ``number`` of an image."""
        return hashlib.blake2b(digest + number.to_bytes(8, "big"), digest_size=32).digest()
