"""One setting for every dataset: how recipe "general" was chosen, and what it is worth: ``docs/results/recipes.md``.

    BIOMEDCOOP_DATA=FOLDER python -m benchmarks.studies.recipes --work WORK --page

Candidates are compared on *validation* images, at 4 images per class, three seeds; the best is the one with the highest
mean of the seen and the unseen group's mean. Then recipe "general" as the package has it meets recipe "paper", which takes the
hyper-parameters that were published for the dataset, on the test images. Methods whose default is the published setting are not
listed: there is no difference.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.command import start
from benchmarks.studies.answers import compute
from benchmarks.studies.study import arguments, run, show
from biomedcoop.evaluation.study.cells import Cell
from biomedcoop.evaluation.study.results import Results
from biomedcoop.evaluation.wording import number, percent
from biomedcoop.methods.recipes import recipe_settings
from biomedcoop.report.studies import dataset_table, difference_table
from biomedcoop.report.table import Table

SHOTS = (4,)
TEST_SHOTS = (1, 4, 16)
CANDIDATES: dict[str, list[dict[str, Any]]] = {
    "biomedcoop": [
        {"sccm_weight": 1.0, "kdsp_weight": 1.0},
        {"sccm_weight": 0.0, "kdsp_weight": 0.0},
        {"sccm_weight": 0.25, "kdsp_weight": 0.25},
        {"sccm_weight": 5.0, "kdsp_weight": 0.25},
        {"sccm_weight": 0.25, "kdsp_weight": 0.25, "batch_size": 16, "lr": 0.01},
        {"sccm_weight": 0.25, "kdsp_weight": 0.25, "lr": 0.005},
        {"sccm_weight": 0.0, "kdsp_weight": 0.25},
    ],
    "kgcoop": [{"weight": w} for w in (0.5, 1.0, 2.0, 4.0, 8.0)] + [{"weight": 1.0, "lr": 0.01}],
    "prograd": [{"temperature": t} for t in (0.25, 1.0, 2.0, 4.0)] + [{"temperature": 1.0, "lr": 0.01}],
    "coop": [{"lr": rate} for rate in (0.002, 0.005, 0.01, 0.02)],
    "clip-adapter": [{"ratio": r, "lr": rate} for r, rate in ((0.5, 0.01), (0.5, 0.1), (0.5, 0.5), (0.2, 0.1))],
}


def named(given: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in given.items())


def key_of(name: str, given: dict[str, Any], shots: int) -> tuple[Any, ...]:
    """A candidate names all that was published by dataset, so what it is put over does not matter."""
    everywhere = {"threshold": 1.5} if name == "biomedcoop" else {}
    return (name, shots, "paper", tuple({**everywhere, **given}.items()), "val")


def cells(datasets: list[str], split: str) -> list[Cell]:
    found = []
    for dataset in datasets:
        for name, candidates in CANDIDATES.items():
            if split == "val":
                for given in candidates:
                    for shots in SHOTS:
                        file = f"val-{dataset}-{name}-{shots}-{named(given).replace(', ', '-')}"
                        found.append(Cell(dataset, key_of(name, given, shots), file, shots))
            elif recipe_settings("general", name):
                for recipe in ("paper", "general"):
                    for shots in TEST_SHOTS:
                        tuned = (
                            named(dict(recipe_settings("general", name))).replace(", ", "-")
                            if recipe == "general"
                            else ""
                        )
                        file = f"test-{dataset}-{name}-{shots}-{recipe}-{tuned}"
                        found.append(Cell(dataset, (name, shots, recipe, (), "test"), file, shots))
    return found


def candidate_table(results: Results, name: str) -> Table:
    rows = []
    for given in CANDIDATES[name]:
        keys = [key_of(name, given, shots) for shots in SHOTS]
        means = [results.mean(datasets, keys).value for datasets in results.complete.values()]
        rows.append([named(given), *map(number, [*means, sum(means) / max(len(means), 1)])])
    return Table([name, *results.complete, "mean"], rows)


def against_paper(
    results: Results, name: str, recipe: str, shots: tuple[int, ...] = TEST_SHOTS
) -> Iterator[tuple[str, Table]]:
    """Accuracy of a recipe beside that of recipe "paper", and the differences."""
    columns = {f"{r}, {k}": (name, k, r, (), "test") for k in shots for r in ("paper", recipe)}
    rows = {f"{recipe} − paper, {k}": ([columns[f"{recipe}, {k}"]], [columns[f"paper, {k}"]]) for k in shots}
    every = {r: [columns[f"{r}, {k}"] for k in shots] for r in ("paper", recipe)}
    yield f"{name}, test", dataset_table(results, columns)
    rows[f"{recipe} − paper, mean"] = (every[recipe], every["paper"])
    yield f"{name}, differences", difference_table(results, rows)


def summary_table(results: Results) -> Table:
    rows = []
    for name in CANDIDATES:
        if tuned := recipe_settings("general", name):
            general, paper = ([(name, k, r, (), "test") for k in TEST_SHOTS] for r in ("general", "paper"))
            means = [results.mean(datasets, general, paper) for datasets in results.complete.values()]
            rows.append([name, named(dict(tuned)), *(percent(m.over_images, signed=True) for m in means)])
    columns = ["method", "recipe general changes", *(f"{group}: general − paper" for group in results.complete)]
    return Table(columns, rows, "ll" + "r" * len(results.complete))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args = arguments(parser)
    results = run(compute, cells(args.datasets, "val"), args, "val")
    candidates = {f"{name}, candidates": candidate_table(results, name) for name in CANDIDATES}
    results = run(compute, cells(args.datasets, "test"), args)
    found = {"summary": summary_table(results), **candidates}
    for name in CANDIDATES:
        if recipe_settings("general", name):
            found |= against_paper(results, name, "general")
    show("recipes", found, args)


if __name__ == "__main__":
    start(main)
