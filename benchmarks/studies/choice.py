"""Choosing within the training images against the published validation images: ``docs/results/choice.md``.

    BIOMEDCOOP_DATA=FOLDER python -m benchmarks.studies.choice --work WORK --page

For the methods that choose a value. "folds": the cross-validation of recipe "general". "images": min(shots, 4) further images per
class, as in recipe "paper". "default": what a method takes where no fold is possible, so always with one image per class.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.command import start
from benchmarks.datasets import SEEDS
from benchmarks.studies.study import arguments, run, show
from benchmarks.tasks import right_answers
from biomedcoop.evaluation.study.cells import Answers, Cell
from biomedcoop.evaluation.study.inputs import encoded, loaded
from biomedcoop.evaluation.study.results import Results
from biomedcoop.report.studies import dataset_table, difference_table, mean_table
from biomedcoop.report.table import Table
from biomedcoop.tasks.build import task_from_features
from biomedcoop.tasks.plan import plan_fit
from biomedcoop.tasks.request import FitRequest

SHOTS = (1, 4, 16)
METHODS = ("linear-probe", "lp++", "tip-adapter", "tip-adapter-f")
RECIPES = {"folds": "general", "images": "paper", "default": "general"}


def ways(shots: int) -> list[str]:
    """Ways of choosing that differ with so many images per class."""
    return [way for way in RECIPES if way != "folds" or shots > 1]


def cells(datasets: list[str]) -> list[Cell]:
    return [
        Cell(dataset, (name, shots, way), f"{dataset}-{name}-{shots}-{way}", shots * (4.0 if way == "folds" else 1.0))
        for dataset in datasets
        for name in METHODS
        for shots in SHOTS
        for way in ways(shots)
    ]


def compute(dataset: str, key: Any, backbone: str) -> Answers:
    """Which test images a method answers rightly, [seeds][images]."""
    name, shots, way = key
    data, features = encoded(dataset, backbone)
    plan = plan_fit(FitRequest(data, method=name, shots=shots, seeds=SEEDS, recipe=RECIPES[way]), data)
    task = task_from_features(
        loaded(backbone),
        data.class_names,
        features,
        torch.from_numpy(data.labels),
        plan.draws,
        plan.val_draws if way == "images" else None,
        None,
        [choice.folds for choice in plan.choices] if way == "folds" else None,
    )
    test = data.indices("test")
    return right_answers(name, task, plan.settings, SEEDS, features[test], torch.from_numpy(data.labels[test]))


def tables(results: Results) -> Iterator[tuple[str, Table]]:
    every = {f"{name}, {k}": {way: (name, k, way) for way in ways(k)} for name in METHODS for k in SHOTS}
    yield "means", mean_table(results, "method, images per class", every)
    for one, other in (("folds", "images"), ("folds", "default"), ("default", "images")):
        rows = {
            name: ([keys[one]], [keys[other]])
            for name, keys in every.items()
            if one in keys and (one == "folds" or "folds" not in keys)
        }
        yield f"{one} − {other}, differences", difference_table(results, rows)
    for name in METHODS:
        columns = {f"{way}, {k}": (name, k, way) for k in SHOTS for way in ways(k)}
        yield name, dataset_table(results, columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args = arguments(parser)
    show("choice", dict(tables(run(compute, cells(args.datasets), args))), args)


if __name__ == "__main__":
    start(main)
