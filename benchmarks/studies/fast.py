"""Recipe "fast": how it was chosen, what it costs in accuracy and saves in time: ``docs/results/fast.md``.

    BIOMEDCOOP_DATA=FOLDER python -m benchmarks.studies.fast --work WORK --page
    BIOMEDCOOP_DATA=FOLDER python -m benchmarks.studies.fast --work WORK --times --page

Candidates, which change recipe "general", are compared with the published settings on *validation* images, at 1, 4 and 16 images
per class, three seeds. Then recipe "fast" as the package has it meets recipe "paper" on the test images. Times are those of
``fit``, three runs together, from stored features; methods and recipes take turns in one process.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

from benchmarks.command import start
from benchmarks.datasets import SEEDS, unused_sentences
from benchmarks.studies.answers import COST, compute
from benchmarks.studies.recipes import against_paper, named
from benchmarks.studies.study import arguments, run, show
from benchmarks.tasks import settings_of, task_of
from biomedcoop.evaluation.study.cells import Cell
from biomedcoop.evaluation.study.inputs import encoded, loaded
from biomedcoop.evaluation.study.results import Results
from biomedcoop.evaluation.wording import number, percent
from biomedcoop.methods import get_method
from biomedcoop.methods.recipes import recipe_settings
from biomedcoop.report.table import Table

SHOTS = (1, 4, 16)


def settings(epochs: int, lr: float, *others: float, warmup: int = 1, batch: int | None = None) -> dict[str, Any]:
    """Changes of recipe "general"; ``others`` are momentum and the longest gradient."""
    return {
        **({"kdsp_weight": 0.1} if batch else {}),
        "epochs": epochs,
        **({"warmup_epochs": warmup} if warmup != 1 else {}),
        **({"batch_size": batch} if batch else {}),
        "lr": lr,
        **dict(zip(("momentum", "max_norm"), others, strict=False)),
    }


CANDIDATES: dict[str, list[dict[str, Any]]] = {
    "biomedcoop": [
        settings(9, 0.4, 0.8, 0.5, warmup=0, batch=6),
        settings(8, 0.3, 0.8, 0.5, warmup=0, batch=6),
        settings(8, 0.4, 0.8, 0.5, warmup=0, batch=6),
        settings(8, 0.5, 0.8, 0.5, warmup=0, batch=6),
        settings(8, 0.6, 0.8, 0.5, warmup=0, batch=6),
        settings(8, 0.6, 0.7, 0.5, warmup=0, batch=6),
        settings(8, 0.5, 0.9, 0.5, warmup=0, batch=6),
        settings(8, 0.5, 0.8, 1.0, warmup=0, batch=6),
        settings(9, 0.2, 0.8, 0.5, warmup=0, batch=6),
        settings(9, 0.3, 0.8, 0.5, warmup=0, batch=6),
        settings(8, 0.4, 0.8, 0.5, batch=6),
        settings(12, 0.2, 0.8, 0.5, batch=6),
        settings(12, 0.2, 0.8, 0.5, batch=16),
        settings(31, 0.3, 0.5, 1.0, batch=1000),
        settings(12, 0.02, batch=6),
        settings(41, 0.1, batch=1000),
    ],
    "kgcoop": [
        settings(8, 0.7, 0.5, 0.5, warmup=0),
        settings(8, 0.6, 0.5, 0.5, warmup=0),
        settings(8, 0.5, 0.5, 0.5, warmup=0),
        settings(8, 0.6, 0.6, 0.5, warmup=0),
        settings(9, 0.5, 0.5, 0.5, warmup=0),
        settings(9, 0.55, 0.5, 0.5),
        settings(10, 0.5, 0.5, 0.5),
        settings(10, 0.1),
    ],
    "prograd": [
        settings(8, 0.4, 0.5, 1.0, warmup=0),
        settings(9, 0.4, 0.5, 1.0, warmup=0),
        settings(9, 0.45, 0.5, 1.0),
        settings(10, 0.4, 0.5, 1.0),
        settings(10, 0.1),
    ],
}
"""The first of each is the chosen one."""

TIMED = ("pneumoniamnist", "btmri", "ham10000")
"""Of two, four and seven classes."""
REPEATS = 3


def candidate_key(name: str, given: dict[str, Any], shots: int) -> tuple[Any, ...]:
    return (name, shots, "general", tuple(given.items()), "val")


def cells(datasets: list[str], split: str) -> list[Cell]:
    found = []
    for dataset in datasets:
        for name, candidates in CANDIDATES.items():
            for shots in SHOTS:
                file = f"fast-{split}-{dataset}-{name}-{shots}"
                paper = Cell(dataset, (name, shots, "paper", (), split), f"{file}-paper", shots * COST.get(name, 1.0))
                found.append(paper)
                if split == "val":
                    for given in candidates:
                        label = named(given).replace(", ", "-")
                        found.append(Cell(dataset, candidate_key(name, given, shots), f"{file}-{label}", shots / 10))
                else:
                    label = named(dict(recipe_settings("fast", name))).replace(", ", "-")
                    found.append(Cell(dataset, (name, shots, "fast", (), split), f"{file}-fast-{label}", shots / 10))
    return found


def candidate_table(results: Results, name: str) -> Table:
    groups = results.complete
    rows = {"paper": [(name, shots, "paper", (), "val") for shots in SHOTS]}
    rows |= {named(given): [candidate_key(name, given, shots) for shots in SHOTS] for given in CANDIDATES[name]}
    cells = [
        [label, *(number(results.mean(datasets, [key]).value) for key in keys for datasets in groups.values())]
        for label, keys in rows.items()
    ]
    return Table([name, *(f"{group}, {shots}" for shots in SHOTS for group in groups)], cells)


def summary_table(results: Results) -> Table:
    """Fast − paper by images per class, with the interval over images."""
    rows = []
    for name in CANDIDATES:
        for group, datasets in results.complete.items():
            keys = {r: [(name, k, r, (), "test") for k in SHOTS] for r in ("fast", "paper")}
            pairs = [*zip(*([[key] for key in keys[r]] for r in ("fast", "paper")), strict=True), tuple(keys.values())]
            means = [results.mean(datasets, fast, paper) for fast, paper in pairs]
            rows.append([name, group, *(percent(m.over_images, signed=True) for m in means)])
    return Table(["method", "group", *map(str, SHOTS), "mean"], rows, "ll" + "r" * (len(SHOTS) + 1))


def accuracy_tables(args: argparse.Namespace) -> dict[str, Table]:
    results = run(compute, cells(args.datasets, "val"), args, "val")
    candidates = {f"{name}, candidates": candidate_table(results, name) for name in CANDIDATES}
    results = run(compute, cells(args.datasets, "test"), args)
    changes = [[name, named(dict(recipe_settings("fast", name)))] for name in CANDIDATES]
    found = {"changes": Table(["method", "recipe fast changes"], changes, "ll"), "summary": summary_table(results)}
    for name in CANDIDATES:
        found |= against_paper(results, name, "fast", SHOTS)
    return {**found, **candidates}


def seconds(dataset: str, backbone: str, name: str, shots: int, recipe: str) -> float:
    """Time of one fit, three runs together."""
    data, features = encoded(dataset, backbone)
    method = get_method(name)
    settings = settings_of(name, data, recipe)
    sentences = unused_sentences(data) if method.abilities.uses_sentences else None
    task = task_of(data, features, loaded(backbone), shots, sentences, SEEDS)
    begin = time.perf_counter()
    method.fit(task, settings, list(SEEDS))
    return time.perf_counter() - begin


def time_table(args: argparse.Namespace) -> Table:
    rows = []
    for name in CANDIDATES:
        for dataset in (d for d in TIMED if d in args.datasets):
            seconds(dataset, args.backbone, name, 1, "fast")  # what is loaded once does not count
            for shots in SHOTS:
                fast = statistics.median(seconds(dataset, args.backbone, name, shots, "fast") for _ in range(REPEATS))
                paper = seconds(dataset, args.backbone, name, shots, "paper")
                classes = len(encoded(dataset, args.backbone)[0].class_names)
                parts = [name, dataset, classes, shots, f"{paper:.2f}", f"{fast:.2f}", f"{100 * fast / paper:.1f} %"]
                rows.append(list(map(str, parts)))
    columns = ["method", "dataset", "classes", "images per class", "paper, s", "fast, s", "fast / paper"]
    return Table(columns, rows, "llrrrrr")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--times", action="store_true", help="measure times in place of accuracy; wants an idle machine"
    )
    args = arguments(parser)
    show("fast", {"seconds": time_table(args)} if args.times else accuracy_tables(args), args)


if __name__ == "__main__":
    start(main)
