"""Images per second from files to features, and the floor that decoding and matrix products set.

    python -m benchmarks.speed.encode [--backbones full-size,mini,FOLDER] [--model FOLDER] [--precisions float32,int8] [--one-core]

``full-size`` has BiomedCLIP's layout and size with random weights, written to a temporary folder unless ``--model`` names one.

Rows: the whole path into an empty store; decoding alone (read, hash, decode, resize, crop, in as many threads as the package
takes); the forward passes alone; the tower's products alone, at the best rate that a product reached here in the same precision;
and the floor: decoding at the rate just measured plus these products. On a CPU both use the same cores, so the times add up;
beside a GPU the longer one counts. A tower of convolutions has one row more: its maps written and read once at the bandwidth of
the memory. That is no floor, because the maps of few images stay in the caches, but shows what bounds a depthwise convolution.
All are measured in turn, several times, and the median is taken. Peak memory is that of the
process (Linux only) while it encodes a number of images and four times that number: it must not grow. "Cosine" is that of a
feature to the same image's in float32, the smallest of all. int8 has no floor: torch has no plain product of that kind to measure.

``--one-core`` gives torch one thread and counts the processor's time in place of the wall's: what one core would do that had
nothing else to do, however busy the machine is. CPU only.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.command import start
from benchmarks.speed.floors import STREAM_BYTES, convolutions, image_flops, map_bytes, peak_mib
from benchmarks.speed.full_size import write_bin
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.efficientnet_lite import EfficientNetLiteConfig
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.crop_reader import CropReader
from biomedcoop.features.images import encode_images
from biomedcoop.features.parallel import run_ahead
from biomedcoop.features.passes import encode_crops, image_batch
from biomedcoop.output import write_atomically

IMAGES = {"full-size": 24, "mini": 512}
IMAGES_OF_A_FOLDER = 256
WIDTH, HEIGHT, QUALITY = 488, 512, 90
REPETITIONS = 5
SQUARES = (1024, 2048, 4096)
PRODUCT_SECONDS = 0.5
"""As long as passes take: a processor may be faster in a shorter burst."""

Work = Callable[[], object]
Clock = Callable[[], float]


@dataclass
class Measured:
    """Seconds and rates of one backbone in one precision.

    Attributes:
        seconds: of every repetition, for ``images`` images: "whole", "decode", "forward".
        flops: of the products for one image.
        best: floating-point operations per second of the fastest product, and which it was.
        peaks: (images, MiB) pairs.
        maps: seconds to write and read the maps of one image once; nan where the tower has none.
    """

    backbone: str
    precision: str
    images: int
    seconds: dict[str, list[float]]
    flops: int
    best: float
    best_product: str
    cosine: float
    peaks: list[tuple[int, float]]
    shares_cores: bool
    maps: float

    def ms(self, what: str) -> float:
        return 1000 * statistics.median(self.seconds[what]) / self.images

    @property
    def products(self) -> float:
        """ms per image at the best rate; nan for int8."""
        return float("nan") if self.precision == "int8" else 1000 * self.flops / self.best

    @property
    def floor(self) -> float:
        """ms per image; nan for int8."""
        decode = self.ms("decode")
        return decode + self.products if self.shares_cores else max(decode, self.products)


def write_jpegs(folder: Path, n: int) -> list[Path]:
    """Smooth noise, about 80 kB a file, every one different."""
    generator = np.random.default_rng(0)
    paths = [folder / f"{i:05d}.jpg" for i in range(n)]
    for path in paths:
        coarse = generator.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(path, quality=QUALITY)
    return paths


def dataset(paths: Sequence[Path]) -> Dataset:
    n = len(paths)
    keys = tuple(path.name for path in paths)
    return Dataset("files", ("any",), list(paths), keys, np.zeros(n, dtype=np.int64), np.full(n, "test"))


def products(backbone: Backbone, clock: Clock) -> Iterator[tuple[str, Callable[[], float]]]:
    """Large square products and the tower's own: name, and what measures FLOP/s once."""
    config = backbone.towers.visual.trunk.config  # type: ignore[attr-defined]
    batch = image_batch(backbone)
    if isinstance(config, EfficientNetLiteConfig):
        own = [(batch * m, k, n) for m, k, n in sorted(set(convolutions(config)), key=math.prod)[-4:]]
    else:
        rows, w, m = batch * ((config.image_size // config.patch_size) ** 2 + 1), config.width, config.mlp_width
        own = [(rows, w, 3 * w), (rows, w, w), (rows, w, m), (rows, m, w)]
    dtype = next(backbone.image_tower.parameters()).dtype
    for a, b, c in [*((s, s, s) for s in SQUARES), *own]:
        x, weight = (torch.randn(shape, dtype=dtype, device=backbone.device) for shape in ((a, b), (c, b)))

        def rate(x: torch.Tensor = x, weight: torch.Tensor = weight, flops: int = 2 * a * b * c) -> float:
            done, start = 0, clock()
            with torch.inference_mode():
                while done == 0 or clock() - start < PRODUCT_SECONDS:
                    out = torch.nn.functional.linear(x, weight)
                    done += 1
                out[0, 0].item()  # waits for the device
            return done * flops / (clock() - start)

        yield f"{a} × {b} × {c}", rate


def peak_of(work: Work) -> float:
    """Most memory that this process held while it worked, MiB; nan where the system does not tell."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return float("nan")
    work()
    return peak_mib()


def images_of(name: str) -> int:
    return IMAGES.get(name, IMAGES_OF_A_FOLDER)


def measure(
    backbone: Backbone, exact: Backbone, name: str, paths: Sequence[Path], folder: Path, clock: Clock
) -> Measured:
    n, stores = images_of(name), count()
    data = dataset(paths[:n])

    def whole(files: Dataset = data) -> Any:
        return encode_images(
            backbone, files, store_root=folder / f"{Path(name).name}-{backbone.precision}-{next(stores)}"
        )

    def decode() -> list[Any]:
        with CropReader(backbone.image_size, resize=backbone.resize) as read:
            return [crop for (crop,), *_ in run_ahead(read, paths[:n], threads=read.threads)]

    crops = decode()
    works: dict[str, Work] = {"whole": whole, "decode": decode, "forward": lambda: encode_crops(backbone, crops)}
    config = backbone.towers.visual.trunk.config  # type: ignore[attr-defined]
    convolutional = isinstance(config, EfficientNetLiteConfig)
    if convolutional:
        works["stream"] = torch.ones(STREAM_BYTES // 4, device=backbone.device).sum
    seconds: dict[str, list[float]] = {what: [] for what in works}
    rates: dict[str, list[float]] = {}
    shapes = list(products(backbone, clock))
    for repetition in range(REPETITIONS + 1):
        # in turn, so that a change of the machine's load meets them all; the first round only warms up
        for what, work in works.items():
            start = clock()
            work()
            if repetition:
                seconds[what].append(clock() - start)
        for product, rate in shapes:
            rates.setdefault(product, []).append(rate())
    works.clear()  # the memory that was streamed is not the encoder's
    medians = {product: statistics.median(found[1:]) for product, found in rates.items()}
    best = max(medians, key=lambda product: medians[product])
    ours, theirs = encode_crops(backbone, crops[:64]), encode_crops(exact, crops[:64])
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return Measured(
        Path(name).name,
        backbone.precision,
        n,
        seconds,
        image_flops(config, backbone.embed_dim),
        medians[best],
        best,
        float(((ours * theirs).sum(1) / lengths).min()),
        [(k, peak_of(lambda k=k: whole(dataset(paths[:k])))) for k in (n, 4 * n)],  # type: ignore[misc]
        backbone.device.type == "cpu",
        map_bytes(config) * statistics.median(seconds["stream"]) / STREAM_BYTES if convolutional else float("nan"),
    )


def tables(rows: Sequence[Measured]) -> list[str]:
    lines = ["| backbone | precision | what | images/s | ms per image |", "|---|---|---|--:|--:|"]
    for row in rows:
        for what, ms in (
            ("whole path, empty store", row.ms("whole")),
            ("decoding only", row.ms("decode")),
            ("forward only", row.ms("forward")),
            ("products only", row.products),
            ("maps only", 1000 * row.maps),
            ("floor", row.floor),
        ):
            if what == "maps only" and math.isnan(ms):
                continue
            lines.append(f"| {row.backbone} | {row.precision} | {what} | {1000 / ms:.1f} | {ms:.2f} |")
    columns = ("share of the floor", "GFLOP per image", "best product, GFLOP/s", "cosine", "peak memory, MiB")
    lines += ["", f"| backbone | precision | {' | '.join(columns)} |", f"|---|---|{'--:|' * len(columns)}"]
    for row in rows:
        peaks = ", ".join(f"{mib:.0f} ({k} images)" for k, mib in row.peaks)
        lines.append(
            f"| {row.backbone} | {row.precision} | {100 * row.floor / row.ms('whole'):.0f} % | {row.flops / 1e9:.2f} "
            f"| {row.best / 1e9:.0f} ({row.best_product}) | {row.cosine:.5f} | {peaks} |"
        )
    return [line.replace("nan %", "–").replace("nan", "–") for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", default="full-size,mini", help="full-size, mini, folders in open_clip layout")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="a full-size model in open_clip layout")
    parser.add_argument("--precisions", default="float32,bfloat16,int8", help="separated by commas")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    parser.add_argument("--one-core", action="store_true", help="processor time of one core in place of wall time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all numbers")
    args = parser.parse_args()
    names = args.backbones.split(",")
    if unknown := [name for name in names if name not in IMAGES and not Path(name).is_dir()]:
        parser.error(f"no backbone {unknown[0]!r} here; known: {', '.join(IMAGES)}, and folders")
    clock = time.process_time if args.one_core else time.perf_counter
    if args.one_core:
        torch.set_num_threads(1)
    load, rows = os.getloadavg()[0], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        paths = write_jpegs(folder, 4 * max(map(images_of, names)))
        for name in names:
            source = (args.model or write_bin(folder / "full-size")) if name == "full-size" else name
            exact = load_backbone(source, device=args.device)
            for precision in args.precisions.split(","):
                print(f"{name} {precision} …", file=sys.stderr, flush=True)
                backbone = load_backbone(source, device=args.device, precision=precision)
                rows.append(measure(backbone, exact, name, paths, folder, clock))
    threads = torch.get_num_threads()
    unit = "processor time of one core" if args.one_core else f"{threads} threads on {args.device}"
    print(f"JPEG files of {WIDTH} × {HEIGHT} px, {unit}, median of {REPETITIONS}; load average before {load:.1f}.\n")
    print("\n".join(tables(rows)))
    if args.json:
        content = {"threads": threads, "load": load, "rows": [asdict(row) for row in rows]}
        write_atomically(args.json, json.dumps(content, indent=1).encode() + b"\n")


if __name__ == "__main__":
    start(main)
