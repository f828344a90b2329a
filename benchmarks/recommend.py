"""Which method? The recommendation that the package ships, and two blocks of the README, all from the tables of ``docs/results/``.

``python -m benchmarks.pages`` writes them. Rules:

- Accuracy is the mean over the datasets, on test images, with recipe "general". Where that recipe changes nothing, the published
  settings are the same.
- A method that chooses does so within its training images; with one of each class it takes its default.
- A number of images that was not measured takes the largest one below it.
- Methods within a point of the first are level with it. A level method that learns from no image is recommended, else the level
  method that is level for most numbers of images: more changes of method would be noise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from textwrap import fill
from typing import Any

from benchmarks.datasets import GROUPS, WITHOUT_IMAGES
from biomedcoop.methods import get_method
from biomedcoop.methods.recipes import recipe_settings
from biomedcoop.methods.recommended import describe
from biomedcoop.report.table import Table

BACKBONE, RECIPE = "the mini of version 0.1", "general"
IMAGES = (1, 2, 4, 8, 16)
"""Labelled images of each class, all counted."""
LEVEL = 1.0
LARGEST = "largest class"

Tables = Mapping[str, Table]
ByDataset = dict[str, float]
BLOCK = re.compile(r"(<!-- (which method|results) -->\n).*?(<!-- end -->)", re.DOTALL)


def collections() -> dict[str, tuple[str, ...]]:
    """Datasets of whose classes pretraining had all or none; one that it knew in part belongs to neither."""
    partly = {dataset for dataset, _ in WITHOUT_IMAGES}
    return {"known": tuple(d for d in GROUPS["seen"] if d not in partly), "unknown": GROUPS["unseen"]}


def column(table: Table, name: str) -> ByDataset:
    """Accuracy in percent by dataset, from a column of a table by dataset."""
    place = list(table.columns).index(name)
    return {str(row[1]): float(str(row[place])) for row in table.rows if row[1] != "**mean**"}


def measured(method: str, methods: Tables, recipes: Tables, choice: Tables) -> dict[int, ByDataset]:
    """What recipe "general" gives, by labelled images of each class."""
    if method in choice:
        columns = {1: "default, 1", 4: "folds, 4", 16: "folds, 16"}
        return {images: column(choice[method], name) for images, name in columns.items()}
    if recipe_settings(RECIPE, method):
        table = recipes[f"{method}, test"]
        names = {name: int(name.removeprefix(f"{RECIPE}, ")) for name in table.columns if name.startswith(RECIPE)}
        return {shots: column(table, name) for name, shots in names.items()}
    return {int(n.split()[0]): column(t, method) for n, t in methods.items() if n.endswith(" per class")}


def recommend(methods: Tables, recipes: Tables, choice: Tables) -> dict[str, Any]:
    """The content of ``src/biomedcoop/methods/recommended.json``."""
    names = methods["1 per class"].columns[2:]
    values = {name: measured(name, methods, recipes, choice) for name in names}
    content: dict[str, Any] = {"backbone": BACKBONE, "recipe": RECIPE}
    for collection, datasets in collections().items():
        accuracy: dict[int, dict[str, float]] = {}
        for images in IMAGES:
            at = {name: max((n for n in of if n <= images), default=None) for name, of in values.items()}
            means = {name: mean(values[name][n], datasets) for name, n in at.items() if n is not None}
            accuracy[images] = dict(sorted(means.items(), key=lambda item: -item[1]))
        content[collection] = {
            "datasets": list(datasets),
            LARGEST: mean({str(name): float(str(share)) for _, name, share in methods[LARGEST].rows}, datasets),
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
    """Every method with the fewest and the most images, for the README."""
    shown = ("1", "4", "16")
    parts = [content[collection] for collection in collections()]
    rows: list[list[object]] = [[LARGEST, *(part[LARGEST] for part in parts for _ in shown)]]
    for name in sorted(parts[1]["accuracy"]["16"], key=lambda name: -parts[1]["accuracy"]["16"][name]):
        cells = [part["accuracy"][images].get(name, "–") for part in parts for images in shown]
        best = [part["recommended"][images] == name for part in parts for images in shown]
        rows.append([f"`{name}`", *(f"**{cell}**" if b else cell for cell, b in zip(cells, best, strict=True))])
    return Table(["", *(f"{words}, {images}" for words in ("known", "unknown") for images in shown)], rows)


def renewed_readme(text: str, content: Mapping[str, Any]) -> str:
    """The README with its two blocks written anew."""
    blocks = {
        "which method": "\n".join(fill(f"- {line}", 140, subsequent_indent="  ") for line in describe(content)),
        "results": results_table(content).markdown(),
    }
    return BLOCK.sub(lambda block: f"{block[1]}\n{blocks[block[2]]}\n\n{block[3]}", text)
