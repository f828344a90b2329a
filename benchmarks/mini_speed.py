"""Images per second of a backbone, and what the machine's matrix products allow at most."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mini_accuracy import Row

from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images import read_image
from biomedcoop.errors import UserError
from biomedcoop.features.encode import encode_crops, encode_images, image_batch, read_crop, run_ahead

SPEED_IMAGES, SPEED_SIDE, REPETITIONS = 1000, 224, 5


def write_jpegs(rows: Sequence[Row], folder: Path) -> Dataset:
    """Up to 1,000 images at 224 px short side as JPEG files of quality 90, in turn from every dataset of about that size.

    Smaller originals would be blurred, and blurred files decode faster.
    """
    from PIL import Image

    def large(row: Row) -> bool:
        return min(read_image(row.held.images[0]).size) >= 0.8 * SPEED_SIDE

    lists = [list(row.held.images) for row in rows if large(row)]
    turns = [images[i] for i in range(max(map(len, lists), default=0)) for images in lists if i < len(images)]
    if not turns:
        raise UserError(f"no dataset here has images of {SPEED_SIDE} px; take more datasets")
    paths = []
    for i, source in enumerate(turns[:SPEED_IMAGES]):
        image = read_image(source)
        scale = SPEED_SIDE / min(image.size)
        width, height = (round(side * scale) for side in image.size)
        paths.append(folder / f"{i:04d}.jpg")
        image.resize((width, height), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    n = len(paths)
    return replace(
        rows[0].held,
        name="speed",
        images=paths,
        keys=tuple(path.name for path in paths),
        labels=np.zeros(n, dtype=np.int64),
        splits=np.array(["test"] * n),
        groups=None,
        root=folder,
    )


def flops_per_image(config: Any, embed_dim: int) -> tuple[int, str]:
    """Floating-point operations of the image tower's products for one image, and the formula with its numbers."""
    size, patch, w, layers, m = config.image_size, config.patch_size, config.width, config.layers, config.mlp_width
    t = (size // patch) ** 2 + 1
    flops = 2 * (t - 1) * 3 * patch**2 * w + layers * (8 * t * w**2 + 4 * t**2 * w + 4 * t * w * m) + 2 * w * embed_dim
    formula = "2(T−1)·3P²·W + L·(8·T·W² + 4·T²·W + 4·T·W·M) + 2·W·E"
    values = f"P = {patch}, T = ({size}/{patch})² + 1 = {t}, W = {w}, L = {layers}, M = {m}, E = {embed_dim}"
    return flops, f"{formula} with {values}: {flops / 1e6:.1f} million"


def product(m: int, k: int, n: int) -> tuple[Callable[[], None], int]:
    """Work of about 2 GFLOP in float32 products [m, k] × [k, n], and how many operations it is."""
    a, b, out = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)
    loops = max(1, round(2e9 / (2 * m * k * n)))

    def run() -> None:
        with torch.inference_mode():
            for _ in range(loops):
                torch.mm(a, b, out=out)

    return run, loops * 2 * m * k * n


def timings(works: dict[Any, Callable[[], object]]) -> dict[Any, list[float]]:
    """Wall seconds of each work, in turn, so that a change of the machine's load meets them all; the first round does not count."""
    taken: dict[Any, list[float]] = {name: [] for name in works}
    for repetition in range(REPETITIONS + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if repetition:
                taken[name].append(time.perf_counter() - start)
    return taken


def speed(backbone: Any, rows: Sequence[Row]) -> tuple[list[str], dict[str, Any]]:
    """Images per second of the whole path and of its parts, and the ceiling that the machine's matrix products set."""
    config = backbone.towers.visual.trunk.config
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = write_jpegs(rows, folder)
        n = len(data)
        paths = list(data.images)
        stores = iter(range(REPETITIONS + 1))

        def decode() -> list[Any]:
            return [crop for crop, _ in run_ahead(lambda path: read_crop(backbone, path), paths)]

        crops = decode()
        load = os.getloadavg()[0]
        taken = timings(
            {
                "whole": lambda: encode_images(backbone, data, store_root=folder / f"store-{next(stores)}"),
                "decode": decode,
                "forward": lambda: encode_crops(backbone, crops),
            }
        )
    tokens = image_batch(backbone) * ((config.image_size // config.patch_size) ** 2 + 1)
    w, m = config.width, config.mlp_width
    shapes = [(side, side, side) for side in (256, 512, 1024, 2048)]
    shapes += [(tokens, w, 3 * w), (tokens, w, w), (tokens, w, m), (tokens, m, w)]
    products = {shape: product(*shape) for shape in shapes}
    seconds = timings({shape: run for shape, (run, _) in products.items()})
    rates = {shape: count / statistics.median(seconds[shape]) for shape, (_, count) in products.items()}
    best = max(rates.values())
    flops, formula = flops_per_image(config, backbone.embed_dim)
    both = [a + b for a, b in zip(taken["decode"], taken["forward"], strict=True)]
    lines = [
        f"{n} JPEG files of {SPEED_SIDE} px short side, {torch.get_num_threads()} threads, median of {REPETITIONS} "
        f"repetitions (slowest–fastest); load average before the start {load:.1f}.",
        "",
        "| what | images/s | ms per image |",
        "|---|--:|--:|",
    ]
    for what, times in (
        ("whole path, empty store", taken["whole"]),
        ("read, decode, resize and crop only", taken["decode"]),
        ("forward pass only", taken["forward"]),
        ("sum of these two", both),
    ):
        middle, fast, slow = (n / f(times) for f in (statistics.median, min, max))
        lines.append(f"| {what} | {middle:.0f} ({slow:.0f}–{fast:.0f}) | {1000 / middle:.2f} |")
    lines.append(f"| ceiling: products at the best rate | {best / flops:.0f} | {1000 * flops / best:.2f} |")
    share = flops * n / statistics.median(taken["forward"]) / best
    lines += ["", f"FLOPs per image: {formula}.", f"The forward pass runs at {100 * share:.0f} % of the best rate.", ""]
    lines += ["| float32 product | GFLOP/s |", "|---|--:|"]
    for (a, b, c), rate in rates.items():
        own = " (the model's own)" if a == tokens else ""
        lines.append(f"| {a} × {b} × {c}{own} | {rate / 1e9:.1f}{' (best)' if rate == best else ''} |")
    numbers = {
        "images": n,
        "threads": torch.get_num_threads(),
        "load_before": load,
        "seconds": taken,
        "flops_per_image": flops,
        "gemm_flops_per_second": {" x ".join(map(str, shape)): rate for shape, rate in rates.items()},
    }
    return lines, numbers
