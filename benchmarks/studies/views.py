"""What random crops of the training images cost and gain: ``docs/results/views.md``.

    BIOMEDCOOP_DATA=FOLDER python -m benchmarks.studies.views --work WORK --page

Every method that learns from images in batches or from all of them at once, with the centre crop (1), with 4 and 16 random crops,
and with a new one in each epoch, as published; recipe "general". All crops are encoded first, once for all methods that are cut
alike, and the seconds are printed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.command import start
from benchmarks.datasets import SEEDS, unused_sentences
from benchmarks.studies.study import arguments, run, show
from benchmarks.tasks import right_answers, settings_of, task_of
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.sampling.few_shot import sample_few_shot
from biomedcoop.evaluation.study.cells import Answers, Cell
from biomedcoop.evaluation.study.inputs import encoded, loaded
from biomedcoop.evaluation.study.results import Results
from biomedcoop.features.images import encode_views
from biomedcoop.methods import Method, get_method
from biomedcoop.methods.settings import declared
from biomedcoop.report.studies import dataset_table, difference_table, mean_table
from biomedcoop.report.table import Table

NAMES = ("biomedcoop", "coop", "clip-adapter", "tip-adapter", "tip-adapter-f", "linear-probe", "lp++")
VIEWS = {4: (1, 4, 16, "per-epoch"), 16: (1, 4)}
"""By images per class; a view in each of 100 epochs at 16 images per class would be 6,400 crops for every four classes."""


def views_of(name: str, shots: int) -> list[int | str]:
    method = get_method(name)
    in_epochs = "epochs" in declared(method.settings_type) and not method.abilities.needs_all_views
    return [views for views in VIEWS[shots] if views != "per-epoch" or in_epochs]


def number_of(name: str, data: Dataset, views: int | str) -> int:
    return int(settings_of(name, data, "general").epochs) if views == "per-epoch" else int(views)


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


def compute(dataset: str, key: Any, backbone: str) -> Answers:
    name, shots, views = key
    data, features = encoded(dataset, backbone)
    method = get_method(name)
    sentences = unused_sentences(data) if method.abilities.uses_sentences else None
    task = task_of(data, features, loaded(backbone), shots, sentences, SEEDS)
    n = number_of(name, data, views)
    if views != 1:
        crops = torch.from_numpy(crops_of(data, method, backbone, shots, n)).flatten(1, 2)
        labels = task.labels.repeat_interleave(n, 1)
        task = replace(task, features=crops, labels=labels, views=n, per_epoch=views == "per-epoch")
    test = data.indices("test")
    truth = torch.from_numpy(data.labels[test])
    return right_answers(name, task, settings_of(name, data, "general"), SEEDS, features[test], truth)


def encode_all(datasets: list[str], backbone: str) -> str:
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
    return f"{count:,} crops in {seconds:.0f} s (those that the store did not have): {count / seconds:.0f} per second."


def tables(results: Results) -> Iterator[tuple[str, Table]]:
    for shots in VIEWS:
        rows = {name: {str(v): (name, shots, v) for v in views_of(name, shots)} for name in NAMES}
        yield f"mean, {shots} per class", mean_table(results, "method", rows)
    for name in NAMES:
        for shots in VIEWS:
            columns: dict[str, Any] = {str(v): (name, shots, v) for v in views_of(name, shots)}
            yield f"{name}, {shots} per class", dataset_table(results, columns)
            centre = columns.pop("1")
            rows = {f"{views} − centre crop": ([key], [centre]) for views, key in columns.items()}
            yield f"{name}, {shots} per class, differences", difference_table(results, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args = arguments(parser)
    print(encode_all(args.datasets, args.backbone) + "\n")
    show("views", dict(tables(run(compute, cells(args.datasets), args))), args)


if __name__ == "__main__":
    start(main)
