"""Pixels of training images for a method that trains the image tower: decoded once, cut anew at every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from biomedcoop.backbones.base import Backbone
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.crop_reader import Crop
from biomedcoop.data.images.crops import Crops, resize_and_crop
from biomedcoop.data.images.reading import open_image
from biomedcoop.data.sampling.few_shot import Draw
from biomedcoop.features.content import named_images
from biomedcoop.features.parallel import run_ahead
from biomedcoop.threads import available_cores

KEPT_BYTES = 2**30
"""Decoded images that are kept in memory, bytes; those beyond it are decoded again whenever they are used."""

DETAIL = 2
"""Largest short edge of a kept image in units of the crops' edge: a crop of a quarter of the image still has all its pixels."""


class Decoded(NamedTuple):
    """An image in memory: its centre crop, the image (mode RGB) for random crops, and the hash of its content."""

    centre: Crop
    image: Image.Image
    digest: bytes

    @property
    def size(self) -> int:
        """Bytes of its pixels."""
        return self.centre.nbytes + 3 * self.image.width * self.image.height


class SupportPixels:
    """Normalised pixels of the training images of R runs, on demand; see :data:`biomedcoop.methods.base.Pixels`.

    Args:
        data: the dataset.
        draws: training images of each run, positions in ``data``.
        crops: the family of random crops.
        kept_bytes: see :data:`KEPT_BYTES`.
    """

    def __init__(
        self, backbone: Backbone, data: Dataset, draws: Sequence[Draw], crops: Crops, kept_bytes: int = KEPT_BYTES
    ) -> None:
        self.backbone, self.draws, self.crops = backbone, draws, crops
        self.images = named_images(data)
        self.room = kept_bytes
        self._kept: dict[int, Decoded] = {}

    def __call__(self, run: int, rows: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Pixels [B, 3, S, S] of ``rows`` [B] of a run's images: centre crops, or with a generator a random crop of each.

        Raises:
            ImageError: an image cannot be read.
        """
        numbers = (
            [None] * len(rows) if generator is None else torch.randint(2**62, rows.shape, generator=generator).tolist()
        )
        positions = self.draws[run][rows.numpy()].tolist()
        threads = min(available_cores(), len(positions))
        crops = list(run_ahead(self._crop, zip(positions, numbers, strict=True), threads=threads))
        return self.backbone.normalize(np.stack(crops))

    def _crop(self, asked: tuple[int, int | None]) -> Crop:
        position, number = asked
        decoded = self._decoded(position)
        if number is None:
            return decoded.centre
        return self.crops.cut(decoded.image, self.backbone.image_size, decoded.digest, number)

    def _decoded(self, position: int) -> Decoded:
        if (kept := self._kept.get(position)) is not None:
            return kept
        opened, size = open_image(*self.images[position]), self.backbone.image_size
        decoded = Decoded(
            resize_and_crop(opened.image, size, self.backbone.resize),
            shrunk(opened.image, DETAIL * size),
            opened.digest,
        )
        if decoded.size <= self.room:
            self.room -= decoded.size
            self._kept[position] = decoded
        return decoded


def shrunk(image: Image.Image, short_edge: int) -> Image.Image:
    """The image with a short edge of at most this number of px (bicubic, antialiased)."""
    share = short_edge / min(image.size)
    if share >= 1:
        return image
    return image.resize((round(share * image.width), round(share * image.height)), Image.Resampling.BICUBIC)
