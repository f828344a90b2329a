"""One setting for every dataset: how recipe "default" was chosen, and what it is worth. Tables of ``docs/results/recipes.md``.

    BIOMEDCOOP_DATA=FOLDER python benchmarks/recipes.py --work WORK > tables.md

Candidates are compared on *validation* images, at 4 images per class, three seeds; the best is the one with the highest
mean of the seen and the unseen group's mean. Then recipe "default" as the package has it meets recipe "paper", which takes the
hyper-parameters that were published for the dataset, on the test images. Methods whose default is the published setting are not
listed: there is no difference.
"""

from __future__ import annotations

import argparse
from typing import Any

from command import start
from study import Cell, Results, arguments, dataset_table, difference_table, number, run_cells, section

from biomedcoop.methods.recipes import recipe_settings
from methods import answers

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


def named(given: dict[str, Any]) -> str:
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
            elif recipe_settings("default", name):
                for recipe in ("paper", "default"):
                    for shots in TEST_SHOTS:
                        tuned = (
                            named(recipe_settings("default", name)).replace(", ", "-") if recipe == "default" else ""
                        )
                        file = f"test-{dataset}-{name}-{shots}-{recipe}-{tuned}"
                        found.append(Cell(dataset, (name, shots, recipe, (), "test"), file, shots))
    return found


def compute(dataset: str, key: Any, backbone: str) -> list[list[int]]:
    return answers(dataset, backbone, *key)


def candidate_table(results: Results, name: str) -> list[str]:
    groups = results.groups_here()
    lines = [f"| {name} | " + " | ".join(groups) + " | mean |", "|---|" + "--:|" * (len(groups) + 1)]
    for given in CANDIDATES[name]:
        keys = [key_of(name, given, shots) for shots in SHOTS]
        means = [results.of(names, keys)[0].value or 0.0 for names in groups.values()]
        lines.append(f"| {named(given)} | " + " | ".join(map(number, [*means, sum(means) / len(means)])) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args = arguments(parser)
    results = run_cells(compute, cells(args.datasets, "val"), args, "val")
    for name in CANDIDATES:
        section(f"{name}: candidates on validation images, {SHOTS[0]} per class", candidate_table(results, name))
    results = run_cells(compute, cells(args.datasets, "test"), args)
    for name in CANDIDATES:
        if tuned := recipe_settings("default", name):
            columns = {f"{r}, {k}": (name, k, r, (), "test") for k in TEST_SHOTS for r in ("paper", "default")}
            rows = {f"default − paper, {k}": ([columns[f"default, {k}"]], [columns[f"paper, {k}"]]) for k in TEST_SHOTS}
            every = {r: [columns[f"{r}, {k}"] for k in TEST_SHOTS] for r in ("paper", "default")}
            rows["default − paper, mean"] = (every["default"], every["paper"])
            title = f"{name}: default ({named(tuned)}) against paper on test images"
            section(title, dataset_table(results, columns), difference_table(results, rows))


if __name__ == "__main__":
    start(main)
