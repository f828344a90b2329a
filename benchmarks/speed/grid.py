"""All methods on one dataset, cold and warm, and how cost grows: ``docs/results/grid.md``.

    BIOMEDCOOP_DATA=FOLDER python -m benchmarks.speed.grid --figure docs/results/scaling.png --page

Grid: every method at 1, 2, 4, 8 and 16 images per class, three seeds, published settings, all test images scored; once cold, with
an empty feature store, and once warm, with what the first has stored. Each is a process of its own. A run is a method, a number of
images and a seed; what learns from no image counts once.

Growth: a BiomedCoOp fit of one epoch while one of images, classes, sentences and runs grows, on random features (the cost does not
depend on what they hold), and encoding. The exponent is the slope of the line of least squares through the logarithms. The floor is
the text tower's floating-point operations, counted, over the rate of the best matrix product measured in the same process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.command import start
from benchmarks.datasets import SEEDS, unused_sentences
from benchmarks.recommend import IMAGES as SHOTS
from benchmarks.speed.floors import peak_mib
from benchmarks.speed.inputs import random_task
from benchmarks.studies.study import show
from benchmarks.tasks import settings_of, task_of
from biomedcoop import load_dataset
from biomedcoop.backbones.base import Backbone
from biomedcoop.evaluation.study.inputs import encoded, loaded
from biomedcoop.features.passes import encode_crops
from biomedcoop.features.texts import encode_texts
from biomedcoop.methods import all_methods, get_method
from biomedcoop.methods.context import ClassPrompts
from biomedcoop.report.figures import write_figure
from biomedcoop.report.table import Table
from biomedcoop.threads import torch_threads

REPEATS = 3
BATCH = 4
"""Of a step of the growth study, as published."""

Axis = tuple[int, ...]
BASE = {"images": 64, "classes": 4, "sentences": 50, "runs": 3}
AXES: dict[str, Axis] = {
    "images": (16, 32, 64, 128, 256),
    "classes": (2, 4, 8, 16, 32),
    "sentences": (10, 20, 40, 80, 160),
    "runs": (1, 2, 4, 8, 16),
}


# --- grid ---------------------------------------------------------------------------------------------------------


def whole_grid(dataset: str, backbone: str) -> dict[str, Any]:
    """Seconds of encoding and of every method and number of images, and the most memory this process had, in MiB."""
    model = loaded(backbone)
    begin = time.perf_counter()
    data, features = encoded(dataset, backbone)
    words = unused_sentences(data)
    task_of(data, features, model, 1, words, SEEDS)  # encodes the sentences
    encoding = time.perf_counter() - begin
    test = features[data.indices("test")]
    seconds: dict[str, dict[str, float]] = {}
    for name, method in all_methods().items():
        if method.abilities.uses_unlabelled:
            continue
        settings = settings_of(name, data)
        seconds[name] = {}
        for shots in SHOTS if method.abilities.uses_images else (0,):
            begin = time.perf_counter()
            task = task_of(data, features, model, shots, words if method.abilities.uses_sentences else None, SEEDS)
            with torch_threads(method.threads(task, settings)):
                states = method.fit(task, settings, list(SEEDS))
            with torch.inference_mode():
                for state in states if shots else states[:1]:
                    method.logits(state, test, model)
            seconds[name][str(shots)] = time.perf_counter() - begin
    peak = peak_mib()
    return {"images": len(data), "encoding": encoding, "seconds": seconds, "peak": peak}


def fresh(dataset: str, backbone: str, cache: Path) -> dict[str, Any]:
    """:func:`whole_grid` in a new process with the feature store in ``cache``; "wall" is the whole process."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.speed.grid", "--dataset", dataset, "--backbone", backbone, "--child"]
    done = subprocess.run(
        command, env={**os.environ, "BIOMEDCOOP_CACHE": str(cache)}, stdout=subprocess.PIPE, check=True
    )
    return {**json.loads(done.stdout), "wall": time.perf_counter() - begin}


def runs_in(seconds: dict[str, dict[str, float]]) -> int:
    return sum(len(SEEDS) if shots != "0" else 1 for by_shots in seconds.values() for shots in by_shots)


def grid_tables(dataset: str, backbone: str) -> dict[str, Table]:
    with tempfile.TemporaryDirectory() as folder:
        found = {what: fresh(dataset, backbone, Path(folder)) for what in ("cold", "warm")}
    rows = []
    for what, of in found.items():
        work = sum(sum(by_shots.values()) for by_shots in of["seconds"].values())
        runs = str(runs_in(of["seconds"]))
        rows.append([what, f"{of['encoding']:.1f}", f"{work:.1f}", f"{of['wall']:.1f}", runs, f"{of['peak']:.0f}"])
    head = ["", "images and sentences encoded, s", "fit and score, s", "process, s", "runs", "peak memory, MiB"]
    whole = Table(head, rows, notes=[f"{dataset}, {found['cold']['images']} images, {backbone}."])
    rows = []
    for name, by_shots in found["warm"]["seconds"].items():
        own = [f"{by_shots[str(k)]:.2f}" if str(k) in by_shots else "" for k in SHOTS]
        rows.append([name, *own, f"{sum(by_shots.values()):.2f}"])
    return {"grid": whole, "seconds": Table(["method", *map(str, SHOTS), "all"], rows)}


# --- growth -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """Seconds at each size of an axis, and the floor where there is one."""

    axis: str
    what: str
    seconds: list[float]
    floor: list[float]

    @property
    def exponent(self) -> float:
        return float(np.polyfit(np.log(AXES[self.axis]), np.log(self.seconds), 1)[0])


def names_of(classes: int) -> list[str]:
    """Names of equal length, so that a prompt costs the same whatever their number."""
    letters = "abcdefgh"
    return [f"tissue {letters[i // 8]} {letters[i % 8]}" for i in range(classes)]


def median_seconds(work: Callable[[], object]) -> float:
    """Of three, after one that does not count."""
    work()
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def fit_seconds(backbone: Backbone, images: int, classes: int, sentences: int, runs: int) -> float:
    """One epoch of BiomedCoOp: images / 4 steps, and what is done once before."""
    method = get_method("biomedcoop")
    settings = method.settings({"epochs": 1, "batch_size": BATCH, "n_sentences": sentences})
    task = random_task(backbone, names_of(classes), images, sentences, runs)
    with torch_threads(method.threads(task, settings)):
        return median_seconds(lambda: method.fit(task, settings, list(range(runs))))


def step_operations(backbone: Backbone, classes: int, runs: int) -> int:
    """Of the text tower, there and back, for the prompts of one step."""
    settings = get_method("biomedcoop").settings({})
    prompts = ClassPrompts(backbone, names_of(classes), settings)
    context = prompts.initial_context(list(range(runs))).requires_grad_()
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(F.normalize(prompts.encode(context), dim=-1).sum(), [context])
    return int(counter.get_total_flops())


def matmul_rate(size: int = 1024, tries: int = 20) -> float:
    """Floating-point operations per second of the best of some matrix products."""
    a = torch.randn(size, size)
    best = float("inf")
    for _ in range(tries):
        begin = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best


def curves(backbone: Backbone, rate: float) -> list[Curve]:
    found = []
    for axis, sizes in AXES.items():
        shapes = [{**BASE, axis: size} for size in sizes]
        floor = [s["images"] // BATCH * step_operations(backbone, s["classes"], s["runs"]) / rate for s in shapes]
        found.append(Curve(axis, "fit, one epoch", [fit_seconds(backbone, **s) for s in shapes], floor))
    crops = np.random.default_rng(0).integers(0, 255, (max(AXES["images"]), *(backbone.image_size,) * 2, 3), np.uint8)
    times = [median_seconds(lambda n=n: encode_crops(backbone, crops[:n])) for n in AXES["images"]]  # type: ignore[misc]
    found.append(Curve("images", "encoding images", times, []))
    times = [sentence_seconds(backbone, BASE["classes"], n) for n in AXES["sentences"]]
    found.append(Curve("sentences", f"encoding sentences of {BASE['classes']} classes", times, []))
    return found


def sentence_seconds(backbone: Backbone, classes: int, sentences: int) -> float:
    """Encoding, each time with an empty store."""
    texts = [
        f"A scan of {name} with {i} bright spots near the upper edge."
        for name in names_of(classes)
        for i in range(sentences)
    ]

    def work() -> None:
        with tempfile.TemporaryDirectory() as folder:
            encode_texts(backbone, texts, store_root=Path(folder))

    return median_seconds(work)


def growth_table(found: list[Curve], rate: float) -> Table:
    rows = []
    for curve in found:
        ratios = ", ".join(f"{s / f:.1f}" for s, f in zip(curve.seconds, curve.floor, strict=False))
        seconds = ", ".join(f"{s:.3g}" for s in curve.seconds)
        sizes = ", ".join(map(str, AXES[curve.axis]))
        rows.append([curve.axis, curve.what, sizes, seconds, f"{curve.exponent:.2f}", ratios])
    base = ", ".join(f"{size} {axis}" for axis, size in BASE.items())
    note = f"Where they do not grow: {base}. Best matrix product: {rate / 1e9:.0f} GFLOP/s."
    return Table(["grows", "what", "sizes", "seconds", "exponent", "times the floor"], rows, "llllrl", [note])


def draw(found: list[Curve], path: Path) -> None:
    """Seconds by size, a panel an axis."""

    def panels(figure: Any) -> None:
        axes = figure.subplots(1, len(AXES), sharey=True)
        for panel, axis in zip(axes, AXES, strict=True):
            for curve in (c for c in found if c.axis == axis):
                panel.plot(AXES[axis], curve.seconds, "-o", markersize=4, label=f"{curve.what}: n^{curve.exponent:.2f}")
                if curve.floor:
                    panel.plot(AXES[axis], curve.floor, ":", color="grey", label="floor of the fit")
            panel.set_xscale("log", base=2)
            panel.set_yscale("log")
            panel.set_xticks(AXES[axis], [str(size) for size in AXES[axis]])
            panel.set_xlabel(axis)
            panel.grid(alpha=0.3)
            panel.legend(frameon=False, fontsize=7)
        axes[0].set_ylabel("seconds")

    write_figure(panels, (3.3 * len(AXES), 3.4), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="busi", help="whose images are learned from")
    parser.add_argument("--backbone", default="mini", help="a name, or a folder in open_clip layout")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="write the figure there")
    parser.add_argument("--page", action="store_true", help="renew docs/results/grid.md too")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(whole_grid(args.dataset, args.backbone)))
        return
    loaded(args.backbone), load_dataset(args.dataset)  # what is wrong with them is said before the processes start
    tables = grid_tables(args.dataset, args.backbone)
    rate = matmul_rate()
    found = curves(loaded(args.backbone), rate)
    show("grid", {**tables, "growth": growth_table(found, rate)}, args)
    if args.figure is not None:
        draw(found, args.figure)


if __name__ == "__main__":
    start(main)
