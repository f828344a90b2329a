"""CalibPrompt's losses on CoOp and BiomedCoOp: accuracy and calibration with and without:
``docs/results/calibration.md``.

    BIOMEDCOOP_DATA=FOLDER python -m benchmarks.studies.calib_prompt --work FOLDER --page

Recipe fast, 16 images per class, three seeds; scored on validation images. ``DATASETS`` are a part of the collected
ones, because CoOp takes minutes on each; ``--work`` keeps what is measured. Methods that read sentences get those that pretraining
has not seen.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks.command import start
from benchmarks.datasets import SEEDS, unused_sentences
from benchmarks.studies.study import show
from benchmarks.tasks import settings_of, task_of
from biomedcoop.evaluation.metrics import values_of
from biomedcoop.evaluation.study.inputs import encoded, loaded
from biomedcoop.methods import get_method
from biomedcoop.output import write_atomically
from biomedcoop.report.table import Table

METHODS = ("coop", "biomedcoop")
LOSSES = {
    "own": {},
    "CalibPrompt": {"label_smoothing": 0.1, "smac_weight": 1.0, "separation_weight": 3.0},
}
"""CalibPrompt: the values that its code has for BiomedCLIP."""
SHOTS = 16
DATASETS = {"seen": ("pneumoniamnist",), "unseen": ("busi",)}
NAMES = [name for names in DATASETS.values() for name in names]

Found = dict[tuple[str, str, str], tuple[float, float]]
"""Accuracy and expected calibration error, both in percent, by dataset, method and losses."""


def measured(dataset: str, backbone: str) -> Found:
    """The mean over seeds of both measures."""
    data, features = encoded(dataset, backbone)
    scored = data.indices("val")
    found: Found = {}
    for name in METHODS:
        method = get_method(name)
        sentences = unused_sentences(data) if method.abilities.uses_sentences else None
        task = task_of(data, features, loaded(backbone), SHOTS, sentences, SEEDS)
        for losses, changes in LOSSES.items():
            states = method.fit(task, settings_of(name, data, "fast", changes.items()), list(SEEDS))
            values = []
            for state in states:
                with torch.inference_mode():
                    p = method.logits(state, features[scored], task.backbone).softmax(-1).numpy()
                own = values_of(p, data.labels[scored], data.class_names)
                values.append((100 * float(own["accuracy"]), 100 * float(own["calibration_error"])))
            found[dataset, name, losses] = tuple(np.mean(values, axis=0))
    return found


def group_table(found: Found) -> Table:
    """Means over the datasets of a group."""
    rows = []
    for name in METHODS:
        for losses in LOSSES:
            cells = []
            for names in DATASETS.values():
                both = np.mean([found[dataset, name, losses] for dataset in names], axis=0)
                cells += [f"{value:.1f}" for value in both]
            rows.append([f"`{name}`", losses, *cells])
    columns = [f"{group}, {what}" for group in DATASETS for what in ("accuracy", "ECE")]
    return Table(["method", "losses", *columns], rows, "ll" + "rr" * len(DATASETS))


def dataset_table(found: Found) -> Table:
    """Own losses → CalibPrompt on each dataset."""
    rows = []
    for dataset in NAMES:
        cells = []
        for name in METHODS:
            before, after = (found[dataset, name, losses] for losses in ("own", "CalibPrompt"))
            cells += [f"{b:.1f} → {a:.1f}" for b, a in zip(before, after, strict=True)]
        rows.append([dataset, *cells])
    return Table(["dataset", *(f"{name}, {what}" for name in METHODS for what in ("accuracy", "ECE"))], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, required=True, metavar="FOLDER", help="keeps the results, a file a dataset"
    )
    parser.add_argument("--datasets", default=",".join(NAMES), help="only measure these, separated by commas")
    parser.add_argument("--backbone", default="mini", help="a name, or a folder in open_clip layout")
    parser.add_argument("--page", action="store_true", help="renew the page in docs/results/ too")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    found: Found = {}
    for dataset in args.datasets.split(","):
        file = args.work / f"{dataset}.json"
        if not file.is_file():
            rows = [[*key, *values] for key, values in measured(dataset, args.backbone).items()]
            write_atomically(file, json.dumps(rows).encode())
            print(f"{dataset} is measured", file=sys.stderr, flush=True)
        found |= {tuple(row[:3]): tuple(row[3:]) for row in json.loads(file.read_text())}
    if set(args.datasets.split(",")) != set(NAMES):
        return
    show("calibration", {"losses": group_table(found), "losses by dataset": dataset_table(found)}, args)


if __name__ == "__main__":
    start(main)
