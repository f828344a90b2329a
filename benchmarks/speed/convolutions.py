"""The passes of an EfficientNet-Lite on one core: as written, channels-last, and prepacked, with several numbers of images.

    python -m benchmarks.speed.convolutions FOLDER

Processor time of one thread, in turn, median: other work on the machine must not decide.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.command import start
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.prepack import prepack_image_tower
from biomedcoop.report.table import Table

IMAGES = (1, 2, 4, 8, 16)
REPETITIONS = 7
IMAGES_TIMED = 32

Pass = Callable[[Tensor], Tensor]


def milliseconds(run: Pass, pixels: Tensor) -> float:
    """Of one image."""
    passes, begun = IMAGES_TIMED // len(pixels), time.thread_time()
    for _ in range(passes):
        run(pixels)
    return 1000 * (time.thread_time() - begun) / IMAGES_TIMED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a backbone in open_clip layout with an EfficientNet-Lite")
    args = parser.parse_args()
    torch.set_num_threads(1)
    backbone = load_backbone(args.folder)
    fast = prepack_image_tower(backbone)
    ways: dict[str, Pass] = {
        "as written": backbone.encode_image,
        "channels-last": lambda x: backbone.encode_image(x.contiguous(memory_format=torch.channels_last)),
        "prepacked": fast.encode_image,
    }
    size = backbone.image_size
    taken: dict[tuple[str, int], list[float]] = {(way, n): [] for way in ways for n in IMAGES}
    with torch.inference_mode():
        inputs = {n: torch.randn(n, 3, size, size) for n in IMAGES}
        for repetition in range(REPETITIONS + 1):
            for way, n in taken:
                found = milliseconds(ways[way], inputs[n])
                if repetition:
                    taken[way, n].append(found)
    rows = [(way, *(f"{statistics.median(taken[way, n]):.1f}" for n in IMAGES)) for way in ways]
    title = ("ms per image, one core", *(f"{n} in a pass" for n in IMAGES))
    print(Table(title, rows).markdown())


if __name__ == "__main__":
    start(main)
