"""Milliseconds that a loaded classifier takes for one image and for many, beside what its image tower takes alone.

    python -m benchmarks.speed.predict [--backbone mini] [--layout biomedclip] [--repeats 100] [--many 64] [--one-core]

One image is given as the bytes of a PNG file. The tower alone encodes a crop in memory, with prepacked weights, in a pass of
one image and in the threads of predictions; "decode" reads the bytes and cuts the crop. Works take turns. The best times bound
what a program can do; p50 and p95 are what a user waits. ``--layout`` takes a checkpoint of this true layout and size with random
weights in place of ``--backbone``; ``--one-core`` counts the processor's time of one core in place of the wall's.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import biomedcoop as bc
from benchmarks.command import positive, start
from benchmarks.speed.full_size import WRITERS
from biomedcoop.backbones.prepack import prepack_image_tower
from biomedcoop.data.images.crop_reader import CropReader
from biomedcoop.data.images.reading import open_image
from biomedcoop.errors import Note
from biomedcoop.features.parallel import passes_on_every_core
from biomedcoop.features.passes import encode_crops, image_batch
from biomedcoop.report.table import Table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mini")
    parser.add_argument("--layout", choices=list(WRITERS))
    parser.add_argument("--repeats", type=positive, default=100)
    parser.add_argument("--many", type=positive, default=64, help="images of the works with several")
    parser.add_argument("--one-core", action="store_true")
    args = parser.parse_args()
    if args.one_core:
        torch.set_num_threads(1)
    warnings.simplefilter("ignore", Note)
    clock = time.process_time if args.one_core else time.perf_counter
    with tempfile.TemporaryDirectory() as place:
        backbone = args.backbone
        if args.layout:
            sys.path.append(str(Path(__file__).parents[2] / "tests"))  # which write the layouts of small models too
            backbone = str(WRITERS[args.layout](Path(place) / args.layout))
        print(measure(backbone, args.repeats, args.many, clock).markdown())


def measure(backbone: str, repeats: int, images: int, clock: Callable[[], float]) -> Table:
    data = bc.load_dataset("simulated:breast-ultrasound?train=8&val=0&test=2")
    classifier = bc.fit(data, method="tip-adapter", backbone=backbone, shots=8)
    content = as_png(data.part("test").images[0])
    frozen = classifier.backbone
    crop = cut(content, frozen)
    packed = prepack_image_tower(frozen, image_batch(frozen))
    many, crops = [content] * images, [crop] * images

    def tower() -> None:
        next(passes_on_every_core(encode, [crop[None]], frozen.device, shared=True))

    def encode(batch: np.ndarray) -> None:
        with torch.inference_mode():
            packed.encode_image(packed.normalize(batch))

    works: dict[str, tuple[Callable[[], object], int]] = {
        "image tower alone, 1 image": (tower, 1),
        "decode and crop, 1 image": (lambda: cut(content, frozen), 1),
        "predict, 1 image": (lambda: classifier.predict_proba(content), 1),
        f"encode {images} crops in memory, per image": (lambda: encode_crops(frozen, crops), images),
        f"predict {images} images, per image": (lambda: classifier.predict_proba(many), images),
    }
    for work, _ in works.values():
        for _ in range(3):
            work()
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats):
        for name, (work, n) in works.items():
            if n == 1 or turn % 10 == 0:
                before = clock()
                work()
                times[name].append(1e3 * (clock() - before) / n)
    rows = [[name, *(f"{value:.1f}" for value in _summary(taken))] for name, taken in times.items()]
    return Table(("work", "best, ms", "p50, ms", "p95, ms"), rows, align="lrrr")


def cut(content: bytes, backbone: bc.backbones.base.Backbone) -> np.ndarray:
    return CropReader(backbone.image_size, resize=backbone.resize)(content).crops[0]


def as_png(image: object) -> bytes:
    file = io.BytesIO()
    opened = Image.fromarray(image) if isinstance(image, np.ndarray) else open_image(image, None).image
    opened.save(file, "PNG")
    return file.getvalue()


def _summary(taken: list[float]) -> tuple[float, float, float]:
    return min(taken), float(np.percentile(taken, 50)), float(np.percentile(taken, 95))


if __name__ == "__main__":
    start(main)
