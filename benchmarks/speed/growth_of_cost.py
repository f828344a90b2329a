"""What a grid costs on machines of several sizes, from measured processor time: the tables of ``docs/clusters.md``.

    python -m benchmarks.speed.growth_of_cost [--full-size] [--per-core-hour 0.05]

A step of each method is measured with three seeds and four classes on random features (the cost does not depend on what they
hold), with one thread, in processor time: a busy machine changes it little. The grids are the few-shot protocol on datasets of the
catalogue, with their published numbers of images and classes. ``--full-size`` measures BiomedCLIP's architecture with random
weights in place of ``mini``.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.command import start
from benchmarks.speed.full_size import write_bin
from benchmarks.speed.inputs import class_names, random_task, write_jpegs
from biomedcoop import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.benchmark.estimate import in_words
from biomedcoop.data.catalogue import CatalogueEntry, entries
from biomedcoop.data.readers.load import read_dataset
from biomedcoop.data.sampling.few_shot import MAX_VAL_SHOTS
from biomedcoop.features.images import encode_images
from biomedcoop.methods import all_methods, get_method
from biomedcoop.methods.training import steps_in
from biomedcoop.report.table import Table
from biomedcoop.threads import torch_threads

CLASSES, SEEDS, SHOTS = 4, 3, (1, 2, 4, 8, 16)
LEFT_OUT = ("cocoop",)
"""Methods that run the text tower for each image: they cost many times what the others do."""

STARTUP, OVERHEAD = 30.0, 0.02
"""Seconds until all nodes have loaded the package, and seconds of a group beside its training."""

MACHINES = {
    "a laptop of 4 cores": (1, 4),
    "a server of 16": (1, 16),
    "4 nodes of 16": (4, 16),
    "16 nodes of 16": (16, 16),
}


def image_seconds(backbone: Backbone, images: int = 64) -> float:
    """Processor seconds to read and encode an image."""
    with tempfile.TemporaryDirectory() as place:
        write_jpegs(Path(place) / "scans", {"train": images // 2}, ("one", "two"))
        data = read_dataset(Path(place) / "scans", for_training=False)
        encode_images(backbone, data.select(range(8)), store_root=Path(place) / "warm")
        begin = time.process_time()
        encode_images(backbone, data, store_root=Path(place) / "store")
        return (time.process_time() - begin) / images


def step_seconds(backbone: Backbone, name: str, settings: Any) -> float:
    """Processor seconds of a step of all seeds, or of the whole fit of a method without epochs."""
    method = get_method(name)
    size = getattr(settings, "batch_size", None) or 16 * CLASSES
    task = random_task(backbone, class_names(CLASSES, 2), size, 50, SEEDS)

    def fit(epochs: int | None) -> float:
        own = settings if epochs is None else dataclasses.replace(settings, epochs=epochs)
        begin = time.process_time()
        method.fit(task, own, list(range(SEEDS)))
        return time.process_time() - begin

    if getattr(settings, "epochs", None) is None:
        return min(fit(None) for _ in range(2))
    fit(1)
    return max(0.0, (fit(12) - fit(2)) / 10)


def group_seconds(step: float, settings: Any, classes: int, shots: int) -> float:
    """Processor seconds of a group of this size."""
    epochs = getattr(settings, "epochs", None)
    steps = (
        1
        if epochs is None
        else steps_in(shots * classes, getattr(settings, "batch_size", None) or shots * classes, epochs)
    )
    return OVERHEAD + steps * step * classes / CLASSES


def encoded_images(entry: CatalogueEntry) -> int:
    """Test images, and at most the images that the seeds draw for training and validation."""
    drawn = SEEDS * (max(SHOTS) + MAX_VAL_SHOTS) * len(entry.class_names)
    return entry.counts["test"] + min(drawn, entry.counts["train"] + entry.counts["val"])


def groups(steps: Mapping[str, float], recipe: str, datasets: Sequence[CatalogueEntry]) -> Iterator[float]:
    """Processor seconds of each group of the few-shot protocol."""
    for entry in datasets:
        for name, step in steps.items():
            settings = get_method(name).settings({}, recipe, entry.name)
            for shots in SHOTS if get_method(name).abilities.uses_images else (0,):
                yield group_seconds(step, settings, len(entry.class_names), shots)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full-size", action="store_true")
    parser.add_argument("--per-core-hour", type=float, default=0.05)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        if asked.full_size:
            write_bin(Path(place))
        backbone = load_backbone(place if asked.full_size else "mini")
    methods = all_methods().items()
    names = [name for name, own in methods if name not in LEFT_OUT and not own.abilities.uses_unlabelled]
    known = [entry for entry in entries() if entry.counts]
    busi = [entry for entry in known if entry.name == "busi"]
    with torch_threads(1):
        encoded = image_seconds(backbone)
        steps = {name: step_seconds(backbone, name, get_method(name).settings({}, "paper")) for name in names}
    print(f"An image: {encoded:.3f} s. Groups of {SEEDS} seeds and {CLASSES} classes, processor seconds:\n")
    rows = []
    for name in names:
        row: list[object] = [name]
        for recipe in ("paper", "fast"):
            settings = get_method(name).settings({}, recipe)
            shown = (1, 16) if get_method(name).abilities.uses_images else (0,)
            row += [f"{group_seconds(steps[name], settings, CLASSES, shots):.2f}" for shots in shown] + [""] * (
                2 - len(shown)
            )
        rows.append(row)
    print(Table(["method", "paper, 1 shot", "16 shots", "fast, 1 shot", "16 shots"], rows).markdown())
    rows = []
    for what, datasets in (("busi", busi), (f"{len(known)} datasets", known)):
        images = sum(map(encoded_images, datasets))
        for recipe in ("fast", "paper"):
            costs = list(groups(steps, recipe, datasets))
            work = images * encoded + sum(costs)
            row = [f"{what}, {recipe}", f"{images:,}", f"{len(costs):,}", f"{work / 3600:.2f}"]
            for nodes, cores in MACHINES.values():
                slots = nodes * cores
                hours = (STARTUP * (nodes > 1) + max(work / slots, images * encoded / slots + max(costs))) / 3600
                row.append(f"{in_words(3600 * hours)}, {slots * hours * asked.per_core_hour:.2f}")
            rows.append(row)
    print()
    print(Table(["grid", "images", "groups", "core hours", *MACHINES], rows).markdown())


if __name__ == "__main__":
    start(main)
