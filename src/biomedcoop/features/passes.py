"""Passes through the image tower, in which the bits of a feature do not depend on the images encoded with it.

Passes have a fixed shape and one thread. An image alone gives the same bits, where the processor's library of products allows it.
A tower is asked at the first short pass, which is filled up with zeros to compare with; :func:`warm_up` does so beforehand. From
then on the images of a short pass are encoded one by one where that is quicker, and those of an only pass too if cores may share
the pass of an image. Where the bits differ, short passes stay filled up.
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
from biomedcoop.backbones.vit import is_watched
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
    return min(backbone.images_per_pass, max(1, 2**28 // _weights_of(backbone.image_tower)))


def quicker_alone(images: int, size: int, backbone: Backbone) -> bool:
    """Whether one core encodes some images sooner one by one than in a pass of ``size`` that is filled up.

    In a large tower it always does. In a small one the own cost of each pass counts: an image alone takes half as long as four.
    """
    return 2 * images <= size or (images < size and _weights_of(backbone.image_tower) > SMALL_TOWER)


def _weights_of(tower: nn.Module) -> int:
    if tower not in _weights:
        _weights[tower] = sum(parameter.numel() for parameter in tower.parameters())
    return _weights[tower]


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
    tower, cpu = backbone.image_tower, backbone.device.type == "cpu"

    def encode(batch: list[tuple[Crop, Tag]]) -> tuple[list[Tag], Tensor]:
        crops, tags = np.stack([crop for crop, _ in batch]), [tag for _, tag in batch]
        threads = torch.get_num_threads() if cpu else 1
        with torch.inference_mode():
            if len(batch) == size and threads == 1:
                return tags, run(crops)
            alone, full = _alone.setdefault(tower, {}), rows_of_a_pass(len(batch), size, backbone)
            few = quicker_alone(len(batch), full, backbone)
            if (n := alone.get(threads, 0)) > 1 or (n == 1 and few):
                with torch_threads(n) if n < threads else nullcontext():
                    return tags, torch.cat([run(crop[None]) for crop in crops])
            filled = np.zeros((full, *crops.shape[1:]), dtype=np.uint8)
            filled[: len(batch)] = crops
            rows = in_threads(1, filled)[: len(batch)]
            # a hook sees no pass that nobody asked for
            if cpu and threads not in alone and (few or threads > 1) and not is_watched(tower):
                tried = dict.fromkeys((threads, 1))
                alone[threads] = next((n for n in tried if torch.equal(in_threads(n, crops[:1]), rows[:1])), 0)
        return tags, rows

    def run(crops: npt.NDArray[np.uint8]) -> Tensor:
        return backbone.encode_image(backbone.normalize(crops)).float()

    def in_threads(n: int, crops: npt.NDArray[np.uint8]) -> Tensor:
        with torch_threads(n):
            return run(crops)

    with closing(passes_on_every_core(encode, batched(tagged_crops, size), backbone.device, shared=True)) as passes:
        yield from passes


SMALL_TOWER = 2**23
"""Number of weights."""

_alone: WeakKeyDictionary[nn.Module, dict[int, int]] = WeakKeyDictionary()
"""How many threads may share the pass of one image, whose bits are then those of a full pass in one thread.

By tower and the number of threads that there are; 0 where its bits differ in one thread too.
"""

_weights: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()


def warm_up(backbone: Backbone) -> None:
    """Prepack the image tower and find out how it encodes a few images, so that the next call is as quick as any other.

    The first short pass of a process is filled up, because its answer is what an image alone is compared with.
    """
    size = image_batch(backbone)
    shape = size + 1, backbone.image_size, backbone.image_size, 3
    crops = list(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    encode_crops(backbone, crops[:1])  # an only pass, which the cores share
    encode_crops(backbone, crops)  # a full pass and a short one, each on a core of its own


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
