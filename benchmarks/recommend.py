"""Which method? The recommendation that the package ships, and the blocks of the README and of two guides that say it.

``python -m benchmarks.pages`` writes them from the tables of the reports ``methods`` and, for what only it has, ``few-shot`` in
``docs/results``: both have the same draws and test images. Rules:

- Accuracy is the mean over the datasets, on test images, with recipe "fast". A method that chooses does so within its training
  images.
- Methods that learn from unlabelled images too are left out: a user may have none.
- Methods within a point of the first are level with it. A level method that learns from no image is recommended, else the level
  method that is level for most numbers of images: more changes of method would be noise.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from benchmarks.datasets import GROUPS, WITHOUT_IMAGES
from biomedcoop.evaluation.bootstrap import Estimate
from biomedcoop.evaluation.wording import percent
from biomedcoop.methods import get_method
from biomedcoop.methods.recommended import describe
from biomedcoop.report.table import Table

BACKBONE, RECIPE = "the shipped mini", "fast"
IMAGES = (1, 2, 4, 8, 16)
"""Labelled images of each class, all counted."""
LEVEL = 1.0
LARGEST = "largest class"
RESULTS = Path(__file__).parents[1] / "docs" / "results"
TABLES = (RESULTS / "few-shot" / "tables", RESULTS / "methods" / "tables")
"""The later ones count where both have a method."""
MIXTURE = "auto"
"""The reference of the report ``methods``."""

ByDataset = dict[str, float]
Rows = Mapping[str, Mapping[str, str]]
"""A table of the report by the first cell of its rows."""
BLOCK = re.compile(r"(<!-- (which method|results|winners) -->\n).*?(<!-- end -->)", re.DOTALL)


def collections() -> dict[str, tuple[str, ...]]:
    """Datasets of whose classes pretraining had all or none; one that it knew in part belongs to neither."""
    partly = {dataset for dataset, _ in WITHOUT_IMAGES}
    return {"known": tuple(d for d in GROUPS["seen"] if d not in partly), "unknown": GROUPS["unseen"]}


def read_table(path: Path) -> Rows:
    with path.open(encoding="utf-8", newline="") as file:
        return {next(iter(row.values())): row for row in csv.DictReader(file)}


def read_report(folders: Sequence[Path] = TABLES) -> dict[str, Rows]:
    """The tables of accuracy by number of images, "datasets-1" to "datasets-16", and "data"."""
    names = [f"datasets-{images}" for images in IMAGES]
    tables = {name: [read_table(folder / f"{name}.csv") for folder in folders] for name in ("data", *names)}
    joined = {name: {key: row for table in of for key, row in table.items()} for name, of in tables.items()}
    return joined | {name: from_labels(joined[name]) for name in names}


def from_labels(by_method: Mapping[str, Any]) -> dict[str, Any]:
    """What belongs to methods that need no unlabelled images."""
    return {name: value for name, value in by_method.items() if not get_method(name).abilities.uses_unlabelled}


def measured(method: str, images: int, report: Mapping[str, Rows]) -> ByDataset:
    """Accuracy in percent by dataset."""
    row = report[f"datasets-{images}"][method]
    return {dataset: float(row[dataset]) for datasets in collections().values() for dataset in datasets}


def recommend(report: Mapping[str, Rows]) -> dict[str, Any]:
    """The content of ``src/biomedcoop/methods/recommended.json``."""
    content: dict[str, Any] = {"backbone": BACKBONE, "recipe": RECIPE}
    for collection, datasets in collections().items():
        accuracy: dict[int, dict[str, float]] = {}
        for images in IMAGES:
            means = {name: mean(measured(name, images, report), datasets) for name in report[f"datasets-{images}"]}
            accuracy[images] = dict(sorted(means.items(), key=lambda item: -item[1]))
        content[collection] = {
            "datasets": list(datasets),
            LARGEST: mean({name: float(row["largest class, %"]) for name, row in report["data"].items()}, datasets),
            "recommended": {str(images): name for images, name in chosen(accuracy).items()},
            "accuracy": {str(images): of for images, of in accuracy.items()},
        }
    return content


def mean(by_dataset: ByDataset, datasets: tuple[str, ...]) -> float:
    return round(sum(by_dataset[name] for name in datasets) / len(datasets), 1)


def chosen(accuracy: Mapping[int, Mapping[str, float]]) -> dict[int, str]:
    """The method for each number of images; see the rules above."""
    level = {n: [name for name, v in of.items() if v >= max(of.values()) - LEVEL - 1e-9] for n, of in accuracy.items()}
    found = {}
    for images, of in level.items():
        if without := [name for name in of if not get_method(name).abilities.uses_images]:
            found[images] = without[0]
    while rest := [images for images in level if images not in found]:
        candidates = {name for images in rest for name in level[images]}
        levels = {name: [accuracy[images][name] for images in rest if name in level[images]] for name in candidates}
        best = max(sorted(candidates), key=lambda name: (len(levels[name]), sum(levels[name])))
        found |= {images: best for images in rest if best in level[images]}
    return dict(sorted(found.items()))


def shipped(content: Mapping[str, Any]) -> str:
    """The text of the JSON file."""
    return json.dumps(content, indent=1) + "\n"


def results_table(content: Mapping[str, Any]) -> Table:
    """Every method with the fewest and the most images, for the guide to the methods."""
    shown = ("1", "4", "16")
    parts = [content[collection] for collection in collections()]
    rows: list[list[object]] = [[LARGEST, *(part[LARGEST] for part in parts for _ in shown)]]
    for name in sorted(parts[1]["accuracy"]["16"], key=lambda name: -parts[1]["accuracy"]["16"][name]):
        cells = [part["accuracy"][images].get(name, "–") for part in parts for images in shown]
        best = [part["recommended"][images] == name for part in parts for images in shown]
        rows.append([f"`{name}`", *(f"**{cell}**" if b else cell for cell, b in zip(cells, best, strict=True))])
    return Table(["", *(f"{words}, {images}" for words in ("known", "unknown") for images in shown)], rows)


def winners_table(folder: Path = TABLES[-1]) -> Table:
    """For seen and unseen data and each number of images: the best single method and ``auto`` minus it."""
    rows: list[list[object]] = []
    for group in GROUPS:
        accuracy = from_labels(read_table(folder / f"accuracy-{group}.csv"))
        minus = read_table(folder / f"difference-points-{group}.csv")
        for images in map(str, IMAGES):
            values = {name: float(row[images]) for name, row in accuracy.items() if name != MIXTURE}
            best = max(values, key=lambda name: values[name])
            low, high = (-float(minus[best][f"{images} {end}"]) / 100 for end in ("high", "low"))
            lost = Estimate(-float(minus[best][images]) / 100, low, high)
            cells = [f"{values[best]:.1f}", f"{float(accuracy[MIXTURE][images]):.1f}", percent(lost, signed=True)]
            rows.append([f"{group}, {images}", f"`{best}`", *cells])
    return Table(["data, images per class", "best method", "accuracy, %", "auto", "auto minus best"], rows)


def renewed_words(text: str, content: Mapping[str, Any]) -> str:
    """The README or the guide to the methods with its blocks written anew."""
    blocks = {
        "which method": "\n".join(fill(f"- {line}", 140, subsequent_indent="  ") for line in describe(content)),
        "results": results_table(content).markdown(),
        "winners": winners_table().markdown(),
    }
    return BLOCK.sub(lambda block: f"{block[1]}\n{blocks[block[2]]}\n\n{block[3]}", text)
