"""The cross-validated estimate of ``train`` without a test split against the test split: ``docs/results/estimate.md``.

    BIOMEDCOOP_DATA=FOLDER python -m benchmarks.studies.estimate --work WORK --page

For each dataset, number of images per class and seed, a draw of the training split stands for a user's folder: ``train`` would
cross-validate method "auto" on it, its choice anew in each fold, and save a classifier of all its images. The validation split, of
the same source as the draw, and the test split say what that classifier is worth. As the draw is balanced, the estimate is
compared with balanced accuracy.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.command import start
from benchmarks.datasets import GROUPS, complete_groups, unused_sentences
from benchmarks.studies.study import arguments, show
from biomedcoop.classifier.fit import fit_plan
from biomedcoop.data.sampling.few_shot import sample_few_shot
from biomedcoop.data.sampling.folds import divide
from biomedcoop.evaluation.comparison import Comparison, Predictions
from biomedcoop.evaluation.cross_validation import cross_validate, plan_folds
from biomedcoop.evaluation.intervals import student, wilson
from biomedcoop.evaluation.metrics import values_of
from biomedcoop.evaluation.study.executor import LocalProcesses
from biomedcoop.evaluation.study.inputs import encoded, loaded
from biomedcoop.evaluation.wording import number, percent
from biomedcoop.methods.auto import CANDIDATES
from biomedcoop.output import write_atomically
from biomedcoop.report.table import Table
from biomedcoop.tasks.plan import plan_fit
from biomedcoop.tasks.request import FitRequest

SHOTS = (4, 16)
SEEDS = (1, 2, 3)
SPLITS = {"validation": "val", "test": "test"}
"""Splits that say what a classifier is worth, by their names in the table."""

METHODS = [name for name in CANDIDATES if name != "biomedcoop"]
"""Candidates here: without the one that takes hours in a study."""


def compute(folder: Path, backbone: str, methods: Sequence[str], item: tuple[str, int, int]) -> str:
    """Estimate with its interval, and what the saved classifier reaches on the two splits; kept in a file."""
    dataset, shots, seed = item
    path = folder / f"estimate-{dataset}-{shots}-{seed}.json"
    if path.is_file():
        return path.stem
    torch.set_num_threads(1)
    data, features = encoded(dataset, backbone)
    drawn = sample_few_shot(data, shots, seed)[0]
    few = data.select(drawn)
    own = {"methods": ",".join(methods)}
    words = str(_words(data, folder))
    request = FitRequest(
        few,
        method="auto",
        backbone=loaded(backbone),
        seeds=(seed,),
        settings=own,
        prompts=words,
        calibrate="no",  # a temperature changes no answer
    )
    divisions = divide(few, request.seeds)
    assert divisions is not None
    plans = plan_folds(request, few, divisions)
    found = cross_validate(plans, few, divisions, features[drawn].numpy(), loaded(backbone))
    answers = np.stack([one.probabilities for one in found])
    estimated = Comparison.of(
        Predictions(few.keys, few.labels, few.class_names, {"auto": answers}, few.groups, folds=divisions.number)
    ).metrics.accuracy
    saved = fit_plan(plan_fit(request, few), loaded(backbone))[0]
    content = [estimated.value, estimated.low, estimated.high]
    for split in SPLITS.values():
        own_images = data.indices(split)
        p = saved.probabilities(features[own_images].numpy())
        content.append(values_of(p, data.labels[own_images], data.class_names)["balanced_accuracy"])
    write_atomically(path, json.dumps(content).encode())
    return path.stem


def _words(data: Any, folder: Path) -> Path:
    """A file of the sentences that pretraining has not used."""
    path = folder / f"{data.name}-sentences.json"
    if not path.is_file():
        words = dict(zip(data.class_names, unused_sentences(data), strict=True))
        write_atomically(path, json.dumps(words).encode())
    return path


def rows(folder: Path, datasets: Sequence[str]) -> Table:
    """Estimate, what the saved classifier reaches, bias and coverage by group and images per class."""
    cells = []
    for group in complete_groups(datasets):
        own = GROUPS[group]
        for shots in SHOTS:
            found = np.stack([_kept(folder, dataset, shots) for dataset in own])  # [datasets, seeds, 5]
            value, low, high, *reached = found.transpose(2, 0, 1)
            cells.append(
                [
                    group,
                    str(shots),
                    number(float(value.mean())),
                    number(float((high - low).mean() / 2)),
                    *(number(float(truth.mean())) for truth in reached),
                    *(percent(student((value - truth).mean(1).tolist()), signed=True) for truth in reached),
                    *(
                        percent(wilson(float(((low <= truth) & (truth <= high)).mean()), truth.size))
                        for truth in reached
                    ),
                ]
            )
    columns = ["group", "images per class", "estimate", "half-width"]
    kinds = ("{}", "estimate − {}", "{} in interval")
    return Table([*columns, *(kind.format(split) for kind in kinds for split in SPLITS)], cells, "lr" + "r" * 8)


def by_dataset(folder: Path, datasets: Sequence[str]) -> Table:
    """Estimate minus the balanced accuracy on the validation split, in points, of each dataset."""
    columns = [f"{text}, {shots}" for text in ("estimate", "estimate − validation") for shots in SHOTS]
    cells = []
    for dataset in datasets:
        found = [_kept(folder, dataset, shots) for shots in SHOTS]
        estimates = [number(float(one[:, 0].mean())) for one in found]
        differences = [f"{100 * (one[:, 0] - one[:, 3]).mean():+.1f}".replace("-", "−") for one in found]
        cells.append([dataset, *estimates, *differences])
    return Table(["mean of the draws", *columns], cells, "l" + "r" * 4)


def _kept(folder: Path, dataset: str, shots: int) -> npt.NDArray[np.float64]:
    """What :func:`compute` kept of each seed, [seeds, 5]."""
    files = [folder / f"estimate-{dataset}-{shots}-{seed}.json" for seed in SEEDS]
    return np.array([json.loads(file.read_text("utf-8")) for file in files])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args = arguments(parser)
    folder = args.work / loaded(args.backbone).fingerprint[:12]
    folder.mkdir(parents=True, exist_ok=True)
    for name in args.datasets:  # once, before several processes need the features
        encoded(name, args.backbone)
    items = [(name, shots, seed) for shots in SHOTS for seed in SEEDS for name in args.datasets]
    work = partial(compute, folder, args.backbone, METHODS)
    for done, name in enumerate(LocalProcesses(args.jobs).map(work, items), start=1):
        print(f"{done}/{len(items)} {name}", flush=True)
    tables = {"estimate": rows(folder, args.datasets), "datasets": by_dataset(folder, args.datasets)}
    show("estimate", tables, args)


if __name__ == "__main__":
    start(main)
