"""What trains the towers beside a linear probe and BiomedCoOp: ``docs/results/fine-tune.md``.

    BIOMEDCOOP_DATA=FOLDER python -m benchmarks.studies.fine_tune --work WORK --page

Accuracy on the test split with its interval, one seed. A cell that is in ``--work`` is not computed again; after ``--minutes`` no
other cell is begun. The tables show a dash for a missing cell, and leave out rows and columns without any.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import biomedcoop as bc
from benchmarks.command import positive, start
from benchmarks.datasets import GROUPS
from benchmarks.pages import publish
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.output import write_atomically
from biomedcoop.report.table import Table

SEED = 1
DATASETS = ("busi", "covid_cxr3", "bccd_cells")
SHOTS = (4, 16)


class Row(NamedTuple):
    """A row of the tables: a method with its recipe and settings."""

    method: str
    recipe: str = "general"
    settings: Mapping[str, Any] = {}


UNGUARDED = {"lr": 1e-4, "mix": 1.0}
"""A usual learning rate for much data, and the trained weights themselves."""

ROWS = {
    "linear-probe": Row("linear-probe"),
    "biomedcoop": Row("biomedcoop", "fast"),
    "fine-tune": Row("fine-tune"),
    "fine-tune, lr 1e-4, mix 1": Row("fine-tune", settings=UNGUARDED),
    "evi-steer": Row("evi-steer"),
    "clip-svd": Row("clip-svd"),
}


def compute(dataset: str, shots: int, row: Row, backbone: Backbone) -> dict[str, float]:
    """Accuracy on the test images with its interval, in percent."""
    data = bc.load_dataset(dataset)
    (classifier,) = bc.fit_runs(
        data, row.method, backbone, shots, [SEED], recipe=row.recipe, settings=dict(row.settings), progress=False
    )
    accuracy = bc.evaluate(classifier, data, "test", progress=False).accuracy
    assert accuracy.low is not None
    assert accuracy.high is not None
    percent = {"accuracy": accuracy.value, "low": accuracy.low, "high": accuracy.high}
    return {name: 100 * float(value) for name, value in percent.items()}


def tables(found: Mapping[tuple[str, int, str], Mapping[str, float]]) -> dict[str, Table]:
    """Accuracy by dataset, images per class and method."""
    group = {name: group for group, names in GROUPS.items() for name in names}

    def cell(dataset: str, shots: int, row: str) -> str:
        one = found.get((dataset, shots, row))
        return "–" if one is None else f"{one['accuracy']:.1f} ({one['low']:.0f}–{one['high']:.0f})"

    columns = [row for row in ROWS if any((dataset, shots, row) in found for dataset in DATASETS for shots in SHOTS)]
    rows = [
        [group[dataset], dataset, shots, *(cell(dataset, shots, row) for row in columns)]
        for dataset in DATASETS
        for shots in SHOTS
        if any((dataset, shots, row) in found for row in ROWS)
    ]
    return {"accuracy": Table(["group", "dataset", "images per class", *columns], rows)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="keeps the results, one file a cell")
    parser.add_argument("--minutes", type=positive, default=600, help="time after which no other cell is begun")
    parser.add_argument("--page", action="store_true", help="renew the page in docs/results/ too")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    end, backbone = time.monotonic() + 60 * args.minutes, load_backbone("mini")
    found = {}
    for shots in SHOTS:
        for name, row in ROWS.items():
            for dataset in DATASETS:
                file = args.work / f"{dataset}-{shots}-{name}-{backbone.fingerprint[:12]}.json"
                if not file.exists() and time.monotonic() < end:
                    write_atomically(file, json.dumps(compute(dataset, shots, row, backbone)).encode())
                if file.exists():
                    found[dataset, shots, name] = json.loads(file.read_text())
                    print(dataset, shots, name, found[dataset, shots, name], file=sys.stderr, flush=True)
    made = tables(found)
    for title, table in made.items():
        print(f"### {title}\n\n{table.markdown()}\n")
    if args.page:
        publish("fine-tune", made)


if __name__ == "__main__":
    start(main)
