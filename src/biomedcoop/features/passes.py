"""Passes through the image tower, in which the bits of a feature do not depend on the images encoded with it.

Passes have a fixed shape and one thread, and a last pass of fewer images is filled up with zeros. In some towers on some processors
a pass of one image gives the bits of a full pass. Where that is found, the images of a pass that is at most half full are encoded
one by one, and those of an only pass too, whose operations the cores then share.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing, nullcontext
from typing import TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.prepack import prepack_image_tower
from biomedcoop.data.images.crop_reader import Crop
from biomedcoop.features.parallel import batched, passes_on_every_core
from biomedcoop.threads import torch_threads

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
    tower = backbone.image_tower
    if (weights := _weights.get(tower)) is None:
        weights = _weights[tower] = sum(parameter.numel() for parameter in tower.parameters())
    return min(backbone.images_per_pass, max(1, 2**28 // weights))


def rows_of_a_pass(images: int, size: int, backbone: Backbone) -> int:
    """Rows of a pass of some images: ``size``, but of a large one that a caller chose only what fills the backbone's own passes."""
    own = image_batch(backbone)
    return min(size, -(-images // own) * own)


def image_passes(
    backbone: Backbone, tagged_crops: Iterable[tuple[Crop, Tag]], size: int | None = None
) -> Generator[tuple[list[Tag], Tensor], None, None]:
    """Encode crops pass by pass, in order.

    An error of ``tagged_crops`` is raised after the features of the crops before it.

    Args:
        tagged_crops: crops uint8 [S, S, 3], each with a tag that comes back beside its feature.
        size: images of a full pass; by default :func:`image_batch`.

    Yields:
        The tags of one pass and its raw features float32 [n, E], on the backbone's device, which may still be computing them.
    """
    size = size or image_batch(backbone)
    backbone = prepack_image_tower(backbone, size)
    tower = backbone.image_tower

    def encode(batch: list[tuple[Crop, Tag]]) -> tuple[list[Tag], Tensor]:
        crops, tags = np.stack([crop for crop, _ in batch]), [tag for _, tag in batch]
        cpu = backbone.device.type == "cpu"
        threads = torch.get_num_threads() if cpu else 1
        with torch.inference_mode():
            if len(batch) == size and threads == 1:
                return tags, run(crops)
            alone = _alone.setdefault(tower, {})
            # an image alone costs about half a full pass of a few, and less where cores share it
            if (known := alone.get(threads)) == ALIKE and (threads > 1 or 2 * len(batch) <= size):
                return tags, torch.cat([run(crop[None]) for crop in crops])
            filled = np.zeros((rows_of_a_pass(len(batch), size, backbone), *crops.shape[1:]), dtype=np.uint8)
            filled[: len(batch)] = crops
            with torch_threads(1) if threads > 1 else nullcontext():
                rows = run(filled)[: len(batch)]
            if known is None:
                alone[threads] = UNKNOWN  # a process that predicts once does not pay for the question
            elif known == UNKNOWN and cpu:
                alone[threads] = ALIKE if torch.equal(run(crops[:1]), rows[:1]) else DIFFERENT
        return tags, rows

    def run(crops: npt.NDArray[np.uint8]) -> Tensor:
        return backbone.encode_image(backbone.normalize(crops)).float()

    with closing(passes_on_every_core(encode, batched(tagged_crops, size), backbone.device, shared=True)) as passes:
        yield from passes


UNKNOWN, ALIKE, DIFFERENT = "unknown", "alike", "different"
"""Whether a pass of one image gives the bits of a full pass in one thread."""

_alone: WeakKeyDictionary[nn.Module, dict[int, str]] = WeakKeyDictionary()
"""By tower and by the number of threads that share the pass of one image."""

_weights: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()


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
