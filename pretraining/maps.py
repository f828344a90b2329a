"""The pool as the frozen front of the image tower sees it, computed once for each view and kept on disk.

Of every view: the maps of stage 5, from which the last stages are trained, and the mean and deviation over positions of each
channel of stages 5 to 7, which say more of an image than the last mean alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from biomedcoop.backbones.efficientnet_lite import EfficientNetLite
from biomedcoop.backbones.prepack_convolutions import MIRRORED, PrepackedConvolution
from pretraining.tail import FRONT_STAGES, blocks_of
from pretraining.views import augmented, normalised, plain

BATCH = 16


class Stages:
    """Outputs of the last stages of a frozen tower: normalised pixels [B, 3, S, S] -> maps of stages 5, 6 and 7."""

    def __init__(self, tower: EfficientNetLite) -> None:
        self.stem = PrepackedConvolution(tower.conv_stem, tower.bn1)
        self.stages = [
            [([PrepackedConvolution(*pair) for pair in block.pairs()], block.shortcut) for block in blocks_of(stage)]
            for stage in tower.blocks
        ]

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> list[Tensor]:
        x = self.stem(pixels.flip(MIRRORED).contiguous(memory_format=torch.channels_last))
        outputs = []
        for stage in self.stages:
            for (*convolutions, last), shortcut in stage:
                before = x
                for convolution in convolutions:
                    x = convolution(x)
                x = last(x, before if shortcut else None)
            outputs.append(x.flip(MIRRORED))
        return outputs[FRONT_STAGES - 1 :]


def moments(maps: list[Tensor]) -> Tensor:
    """Mean and deviation over the positions of every channel, [B, 2 · channels]."""
    return torch.cat([part for x in maps for part in (x.mean((2, 3)), x.std((2, 3), correction=0))], 1)


def views(images: Tensor, number: int, size: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Normalised batches of one view of every image; view 0 is the test view, the others are augmented."""
    for batch in torch.split(images, BATCH):
        yield normalised(augmented(batch, size, rng) if number else plain(batch, size))


def store_view(stages: Stages, images: Tensor, number: int, size: int, rng: torch.Generator, folder: Path) -> None:
    """Write maps and moments of one view, float16, by replacement."""
    side = -(-size // 16)
    temporary = folder / "maps.tmp"
    maps = np.lib.format.open_memmap(temporary, "w+", np.float16, (len(images), stages_width(stages), side * side))
    means, done = [], 0
    for pixels in views(images, number, size, rng):
        found = stages(pixels)
        maps[done : done + len(pixels)] = found[0].flatten(2).numpy()
        means.append(moments(found).half())
        done += len(pixels)
        if done % (64 * BATCH) == 0:
            print(f"\r  view {number}: {done}/{len(images)} images ", end="", flush=True)
    maps.flush()
    del maps
    with (folder / "moments.tmp").open("wb") as file:
        np.save(file, torch.cat(means).numpy())
    (folder / "moments.tmp").replace(folder / f"moments-{number}.npy")
    temporary.replace(folder / f"maps-{number}.npy")
    print(f"\rview {number}: {len(images)} images", flush=True)


def stages_width(stages: Stages) -> int:
    """Channels of stage 5."""
    return len(stages.stages[FRONT_STAGES - 1][-1][0][-1].bias)


class Views:
    """The stored views of the pool.

    Args:
        folder: where they are.
        count: how many.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.maps = [np.load(folder / f"maps-{v}.npy", mmap_mode="r") for v in range(count)]
        self.moments = [torch.from_numpy(np.load(folder / f"moments-{v}.npy")).float() for v in range(count)]

    def batch(self, view: int, index: Tensor) -> Tensor:
        """Maps of stage 5 of some images, [C, N, P]."""
        chosen = torch.from_numpy(self.maps[view][index.numpy()])
        return chosen.permute(1, 0, 2).float().contiguous()
