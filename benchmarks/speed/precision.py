"""What coarser image features cost in accuracy: the tables of ``docs/performance.md``.

    BIOMEDCOOP_DATA=FOLDER python -m benchmarks.speed.precision --work WORK [--images 200] > tables.md

Class names alone (zero-shot), and methods trained on 16 images per class, three draws, with training and test images in float32
and in every other precision that the backbone takes. Differences are paired: the same images, draws and seeds. Beside them stand
the cosines of the test images' features to those in float32. ``--images`` takes at most so many test images of a dataset.
"""

from __future__ import annotations

import argparse
import json
from functools import cache
from pathlib import Path

import numpy as np
import torch

from benchmarks.command import positive, start
from benchmarks.datasets import GROUPS, NAMES, SEEDS, related
from biomedcoop.api import fit_runs, predict_dataset
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.readers.load import load_dataset
from biomedcoop.evaluation.study.cells import Cell
from biomedcoop.evaluation.study.results import Results
from biomedcoop.features.images import encode_images
from biomedcoop.output import write_atomically
from biomedcoop.report.studies import dataset_table, difference_table
from biomedcoop.report.table import Table

EXACT = "float32"
METHODS = {"zero-shot": "paper", "linear-probe": "paper", "lp++": "paper", "biomedcoop": "fast"}
"""With its recipe."""
SHOTS = 16


@cache
def loaded(backbone: str, precision: str) -> Backbone:
    return load_backbone(backbone, precision=precision)


def tested(data: Dataset, most: int | None) -> Dataset:
    """At most so many test images; the same for every precision."""
    rows = data.indices("test")
    if most is not None and len(rows) > most:
        rows = np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
    return data.select(rows)


def answers(data: Dataset, part: Dataset, method: str, backbone: Backbone) -> list[list[int]]:
    """Which images are answered rightly, [seeds][images]."""
    runs = fit_runs(data, method, backbone, SHOTS, SEEDS, recipe=METHODS[method])
    return [(predict_dataset(run, part).argmax(1) == part.labels).astype(int).tolist() for run in runs]


def cosines(part: Dataset, one: Backbone, other: Backbone) -> np.ndarray:
    """Of each image's features in two precisions."""
    a, b = (encode_images(backbone, part) for backbone in (one, other))
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="keeps the results, one file a cell")
    parser.add_argument("--backbone", default="mini", help="a name, or a folder in open_clip layout")
    parser.add_argument("--datasets", nargs="+", default=NAMES, choices=NAMES, metavar="NAME", help="only these")
    parser.add_argument("--images", type=positive, help="most test images of a dataset; all by default")
    args = parser.parse_args()
    exact = loaded(args.backbone, EXACT)
    precisions = exact.precisions
    folder = args.work / f"{exact.fingerprint[:12]}-{args.images or 'all'}"
    folder.mkdir(parents=True, exist_ok=True)
    groups, cells, rows = {}, [], []
    for name in args.datasets:
        data = load_dataset(name)
        part = tested(data, args.images)
        groups[name] = related(part)
        for precision in precisions:
            backbone = loaded(args.backbone, precision)
            for method in METHODS:
                cells.append(Cell(name, (method, precision), f"{name}-{method}-{precision}"))
                if not cells[-1].file(folder).is_file():
                    right = answers(data, part, method, backbone)
                    write_atomically(cells[-1].file(folder), json.dumps(right).encode())
            if precision != EXACT:
                found = cosines(part, exact, backbone)
                rows.append([name, precision, str(len(part.labels)), f"{found.min():.4f}", f"{found.mean():.4f}"])
    results = Results(groups, folder, cells, GROUPS)
    columns = {f"{method}, {precision}": (method, precision) for method in METHODS for precision in precisions}
    print(dataset_table(results, columns).markdown(), "\n")
    for precision in precisions[1:]:
        learning = [method for method in METHODS if method != "zero-shot"]
        of = {**{method: [method] for method in METHODS}, "all that learn": learning}
        compared = {
            f"{what}, {precision} - {EXACT}": ([(m, precision) for m in methods], [(m, EXACT) for m in methods])
            for what, methods in of.items()
        }
        if results.complete:
            print(difference_table(results, compared).markdown(), "\n")
    print(Table(["dataset", "precision", "images", "least cosine", "mean cosine"], rows, "llrrr").markdown())
    print(
        f"\n{torch.get_num_threads()} threads, {exact.name}; 16 images per class, seeds {', '.join(map(str, SEEDS))}."
    )


if __name__ == "__main__":
    start(main)
