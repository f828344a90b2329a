"""Passes of fixed shape through the image tower.

The last pass is filled up with zeros, so that the bits of a feature do not depend on the images encoded with it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.prepack import prepack_image_tower
from biomedcoop.data.images.crop_reader import Crop
from biomedcoop.features.parallel import batched, passes_on_every_core

Floats = npt.NDArray[np.float32]
Tag = TypeVar("Tag")


def image_batch(backbone: Backbone) -> int:
    """Images per pass of the image tower.

    On a CPU a large tower takes few images, whose activations then stay in a core's cache. A small tower takes many, because
    each pass has a cost of its own: 2^28 divided by the number of weights, at most the backbone's ``images_per_pass``.
    """
    if backbone.device.type != "cpu":
        return 64
    if backbone.precision == "int8":
        return 1  # activations share one scale in a pass, and an image must not depend on its neighbours
    weights = sum(parameter.numel() for parameter in backbone.image_tower.parameters())
    return min(backbone.images_per_pass, max(1, 2**28 // weights))


def image_passes(
    backbone: Backbone, tagged_crops: Iterable[tuple[Crop, Tag]]
) -> Generator[tuple[list[Tag], Tensor], None, None]:
    """Encode crops pass by pass, in order.

    An error of ``tagged_crops`` is raised after the features of the crops before it.

    Args:
        tagged_crops: crops uint8 [S, S, 3], each with a tag that comes back beside its feature.

    Yields:
        The tags of one pass and its raw features float32 [n, E], on the backbone's device, which may still be computing them.
    """
    size = image_batch(backbone)
    backbone = prepack_image_tower(backbone)

    def encode(batch: list[tuple[Crop, Tag]]) -> tuple[list[Tag], Tensor]:
        filled = np.zeros((size, *batch[0][0].shape), dtype=np.uint8)
        np.stack([crop for crop, _ in batch], out=filled[: len(batch)])
        with torch.inference_mode():
            rows = backbone.encode_image(backbone.normalize(filled))[: len(batch)].float()
        return [tag for _, tag in batch], rows

    with closing(passes_on_every_core(encode, batched(tagged_crops, size), backbone.device)) as passes:
        yield from passes


def encode_crops(backbone: Backbone, crops: Sequence[Crop]) -> Floats:
    """Encode crops that are in memory, without the store.

    Args:
        crops: n crops, each uint8 [S, S, 3].

    Returns:
        Raw features float32 [n, E].
    """
    with closing(image_passes(backbone, ((crop, None) for crop in crops))) as passes:
        return as_array([rows for _, rows in passes], backbone.embed_dim)


def as_array(rows: Sequence[Tensor], width: int) -> Floats:
    """Features of several passes as one float32 array [n, ``width``] in memory."""
    return torch.cat(list(rows)).cpu().numpy() if rows else np.zeros((0, width), dtype=np.float32)
