"""Random crops of an image: the augmentation that the published few-shot methods train with.

A crop is decided by the image's content and a number alone, so that every method, run and process that asks for it gets the same
one and it is computed once.
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

ASPECT_RATIOS = (3 / 4, 4 / 3)
_ATTEMPTS = 10


@dataclass(frozen=True)
class Crops:
    """A family of random crops (torchvision's RandomResizedCrop, in PIL and with random numbers of its own).

    Attributes:
        smallest: least share of the image's area; the largest is all of it.
        flip: probability of a mirror image.
    """

    smallest: float = 0.08
    flip: float = 0.0

    def box(self, width: int, height: int, draw: random.Random) -> tuple[int, int, int, int]:
        """Left, upper, right and lower edge in px: area share and aspect ratio drawn, the whole image's centre if none fits."""
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
        """32 bytes that stand for crop ``number`` of an image."""
        return hashlib.blake2b(digest + number.to_bytes(8, "big"), digest_size=32).digest()
