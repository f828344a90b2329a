"""Seconds per image of each saliency map, beside a forward pass and the floor of the maps that mask the image.

    python -m benchmarks.speed.explain [--backbones mini,full-size,FOLDER] [--maps gscorecam,grad-cam] [--images 4] [--one-core]

The forward pass is that of ``predict``, in the passes and with the prepacked weights that it uses. The floor of gScoreCAM and
Score-CAM is the number of channels that they score times that forward pass; the share is the floor's part of the time. Works
take turns, and the table gives medians. ``full-size`` has BiomedCLIP's layout and size with random weights. ``--one-core`` gives
torch one thread and counts the processor's time in place of the wall's.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.command import positive, start
from benchmarks.speed.full_size import write_bin
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.classifier import Classifier
from biomedcoop.data.images.crops import resize_and_crop
from biomedcoop.data.images.reading import read_image
from biomedcoop.data.simulate.load import load_simulated
from biomedcoop.errors import UserError
from biomedcoop.explain import channels
from biomedcoop.explain.kinds import MAPS, maps_for
from biomedcoop.explain.maps import crop_maps
from biomedcoop.features.passes import encode_crops
from biomedcoop.report.table import Table

FORWARD_IMAGES = 16
MASKED = ("gscorecam", "score-cam")
"""Maps that score an image behind masks."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", default="mini,full-size")
    parser.add_argument("--maps", default=",".join(MAPS))
    parser.add_argument("--images", type=positive, default=4)
    parser.add_argument("--one-core", action="store_true")
    args = parser.parse_args()
    wanted = args.maps.split(",")
    if unknown := [name for name in wanted if name not in MAPS]:
        raise UserError(f"no map '{unknown[0]}'; known: {', '.join(MAPS)}")
    clock = time.perf_counter
    if args.one_core:
        torch.set_num_threads(1)
        clock = time.process_time
    rows = []
    for name in args.backbones.split(","):
        with loaded(name) as backbone:
            rows += measure(name, backbone, wanted, args.images, clock)
    columns = ("backbone", "map", "ms per image", "forward passes", "channels scored", "floor, ms", "floor's share, %")
    print(Table(columns, rows, align="ll" + "r" * 5).markdown())


def counted_masks(classifier: Classifier, crops: npt.NDArray[np.uint8], name: str) -> float:
    """Mean number of channels that a map of one image scores; channels without a place are left out."""
    counts: list[int] = []

    def count(backbone: Backbone, image: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        counts.append(len(masks))
        return torch.ones(len(masks), backbone.embed_dim)

    with mock.patch.object(channels, "masked_features", count):
        crop_maps(classifier, crops, np.zeros(len(crops), dtype=np.int64), name)
    return statistics.mean(counts)


@contextmanager
def loaded(name: str) -> Iterator[Backbone]:
    if name != "full-size":
        yield load_backbone(name)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_bin(Path(folder))
        yield load_backbone(folder)


def measure(
    name: str, backbone: Backbone, wanted: list[str], images: int, clock: Callable[[], float]
) -> list[list[str]]:
    """A row for the forward pass and for each map that the tower gives."""
    data = load_simulated("simulated:breast-ultrasound?train=6&val=0&test=0")
    crops = np.stack(
        [resize_and_crop(read_image(image), backbone.image_size, backbone.resize) for image in data.images]
    )[:FORWARD_IMAGES]
    weight = torch.randn(3, backbone.embed_dim, generator=torch.Generator().manual_seed(0))
    classifier = Classifier(("a", "b", "c"), "linear-probe", {"weight": weight, "bias": torch.zeros(3)}, backbone)
    maps = [one for one in maps_for(backbone.tower_kind) if one in wanted]
    seconds: dict[str, list[float]] = {one: [] for one in ("forward", *maps)}
    encode_crops(backbone, list(crops))  # prepacks
    for number in range(images):
        for one in maps:
            start_time = clock()
            encode_crops(backbone, list(crops))
            seconds["forward"].append((clock() - start_time) / len(crops))
            # maps without masks take several images in a pass; masks are batched within an image
            part = crops[[number % len(crops)]] if one in MASKED else crops
            start_time = clock()
            crop_maps(classifier, part, np.zeros(len(part), dtype=np.int64), one)
            seconds[one].append((clock() - start_time) / len(part))
    forward = statistics.median(seconds["forward"])
    scored = {one: counted_masks(classifier, crops[:images], one) for one in maps if one in MASKED}
    rows = []
    for one, times in seconds.items():
        middle, count = statistics.median(times), scored.get(one, 0)
        floor = (
            [f"{count:.0f}", f"{1000 * count * forward:.0f}", f"{100 * count * forward / middle:.0f}"]
            if count
            else ["", "", ""]
        )
        rows.append([name, one, f"{1000 * middle:.1f}", f"{middle / forward:.1f}", *floor])
    return rows


if __name__ == "__main__":
    start(main)
