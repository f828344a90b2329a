"""What random crops of the training images cost and gain: the tables of ``docs/results/views.md``.

    BIOMEDCOOP_DATA=FOLDER python benchmarks/random_crops.py --work WORK > tables.md

Every method that learns from images in batches or from all of them at once, with the centre crop (1), with 4 and 16 random crops,
and with a new one in each epoch, as published; recipe "default". What else is done is in ``study.py``. All crops are encoded
first, once for all methods that are cut alike, and the seconds are printed.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from command import start
from mini_accuracy import SEEDS
from study import Cell, Results, arguments, dataset_table, difference_table, encoded, loaded, number, run_cells, section

from biomedcoop.data.catalogue import find
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.sampling.few_shot import sample_few_shot
from biomedcoop.features.images import encode_views
from biomedcoop.methods import Method, Task, get_method
from methods import task_of

NAMES = ("biomedcoop", "coop", "clip-adapter", "tip-adapter", "tip-adapter-f", "linear-probe", "lp++")
VIEWS = {4: (1, 4, 16, "per-epoch"), 16: (1, 4)}
"""By images per class; a view in each of 100 epochs at 16 images per class would be 6,400 crops for every four classes."""


def settings_of(name: str, data: Dataset) -> Any:
    entry = find(data.name, data.class_names)
    return get_method(name).settings({}, "default", entry.name if entry else None)


def views_of(name: str, shots: int) -> list[int | str]:
    return [v for v in VIEWS[shots] if v != "per-epoch" or not get_method(name).abilities.needs_all_views]


def number_of(name: str, data: Dataset, views: int | str) -> int:
    return settings_of(name, data).epochs if views == "per-epoch" else int(views)


def cells(datasets: list[str]) -> list[Cell]:
    cost = {"biomedcoop": 8.0, "linear-probe": 2.0, "tip-adapter-f": 2.0}
    return [
        Cell(dataset, (name, shots, views), f"{dataset}-{name}-{shots}-{views}", shots * cost.get(name, 1.0))
        for dataset in datasets
        for name in NAMES
        for shots in VIEWS
        for views in views_of(name, shots)
    ]


def crops_of(data: Dataset, method: Method, backbone: str, shots: int, n: int) -> np.ndarray:
    """Features of n crops of each image that any seed draws, and where each of these images is, [images, n, E] and [R, N]."""
    rows = np.stack([sample_few_shot(data, shots, seed)[0] for seed in SEEDS])
    used = np.unique(rows)
    return encode_views(loaded(backbone), data.select(used), method.crops, n)[np.searchsorted(used, rows)]


def compute(dataset: str, key: Any, backbone: str) -> list[list[int]]:
    name, shots, views = key
    data, features = encoded(dataset, backbone)
    method, settings = get_method(name), settings_of(name, data)
    task: Task = task_of(data, features, backbone, shots, method.abilities.uses_sentences, SEEDS)
    n = number_of(name, data, views)
    if views != 1:
        crops = torch.from_numpy(crops_of(data, method, backbone, shots, n)).flatten(1, 2)
        labels = task.labels.repeat_interleave(n, 1)
        task = replace(task, features=crops, labels=labels, views=n, per_epoch=views == "per-epoch")
    scored = data.indices("test")
    truth = torch.from_numpy(data.labels[scored])
    right = []
    for state in method.fit(task, settings, list(SEEDS)):
        with torch.inference_mode():
            right.append((method.logits(state, features[scored], loaded(backbone)).argmax(1) == truth).int().tolist())
    return right


def encode_all(datasets: list[str], backbone: str) -> list[str]:
    """Every crop that a cell needs, and a line on what that took."""
    begin, count = time.monotonic(), 0
    for dataset in datasets:
        data, _ = encoded(dataset, backbone)
        for shots in VIEWS:
            for crops in {get_method(name).crops for name in NAMES}:
                alike = [name for name in NAMES if get_method(name).crops == crops]
                n = max(number_of(name, data, views) for name in alike for views in views_of(name, shots))
                rows = np.unique([sample_few_shot(data, shots, seed)[0] for seed in SEEDS])
                count += n * len(rows)
                encode_views(loaded(backbone), data.select(rows), crops, n)
        print(f"{dataset}: crops encoded, {time.monotonic() - begin:.0f} s in all", file=sys.stderr, flush=True)
    seconds = time.monotonic() - begin
    return [
        f"{count:,} crops in {seconds:.0f} s (those that the store did not have): {count / seconds:.0f} per second."
    ]


def print_tables(results: Results) -> None:
    for name in NAMES:
        groups = results.groups_here()
        for shots in VIEWS:
            columns = {f"{views}": (name, shots, views) for views in views_of(name, shots)}
            rows = {f"{views} − centre crop": ([key], [columns["1"]]) for views, key in columns.items() if views != "1"}
            parts = [dataset_table(results, columns), difference_table(results, rows)] if groups else []
            section(f"{name}, {shots} per class", *parts)
    for shots in VIEWS:
        lines = ["| method | " + " | ".join(f"{g}, {v}" for g in results.groups_here() for v in VIEWS[shots]) + " |"]
        lines.append("|---|" + "--:|" * (len(lines[0].split("|")) - 3))
        for name in NAMES:
            values = [
                number(results.of(names, [(name, shots, v)])[0].value or 0.0) if v in views_of(name, shots) else "–"
                for names in results.groups_here().values()
                for v in VIEWS[shots]
            ]
            lines.append(f"| {name} | " + " | ".join(values) + " |")
        section(f"Mean accuracy, {shots} per class, by views", lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args = arguments(parser)
    section("Crops", encode_all(args.datasets, args.backbone))
    print_tables(run_cells(compute, cells(args.datasets), args))


if __name__ == "__main__":
    start(main)
