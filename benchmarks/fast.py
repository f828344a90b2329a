"""Recipe "fast": how it was chosen, what it costs in accuracy and saves in time. Tables of ``docs/results/fast.md``.

    BIOMEDCOOP_DATA=FOLDER python benchmarks/fast.py --work WORK > tables.md
    BIOMEDCOOP_DATA=FOLDER python benchmarks/fast.py --work WORK --times > times.md

Candidates, which change recipe "default", are compared with the published settings on *validation* images, at 1, 4 and 16 images
per class, three seeds. Then recipe "fast" as the package has it meets recipe "paper" on the test images. Times are those of
``fit``, three runs together, from stored features; methods and recipes take turns in one process.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

from command import start
from mini_accuracy import SEEDS
from recipes import named
from study import Cell, Results, arguments, dataset_table, difference_table, encoded, number, run_cells, section

from biomedcoop.data.catalogue import find
from biomedcoop.methods import get_method
from biomedcoop.methods.recipes import recipe_settings
from methods import COST, answers, task_of

SHOTS = (1, 4, 16)


def settings(epochs: int, lr: float, *others: float, warmup: int = 1, batch: int | None = None) -> dict[str, Any]:
    """Changes of recipe "default"; ``others`` are momentum and the longest gradient."""
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
    return (name, shots, "default", tuple(given.items()), "val")


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
                    label = named(recipe_settings("fast", name)).replace(", ", "-")
                    found.append(Cell(dataset, (name, shots, "fast", (), split), f"{file}-fast-{label}", shots / 10))
    return found


def compute(dataset: str, key: Any, backbone: str) -> list[list[int]]:
    return answers(dataset, backbone, *key)


def candidate_table(results: Results, name: str) -> list[str]:
    groups = results.groups_here()
    head = [f"{group}, {shots}" for shots in SHOTS for group in groups]
    lines = [f"| {name} | " + " | ".join(head) + " |", "|---|" + "--:|" * len(head)]
    rows = {"paper": [(name, shots, "paper", (), "val") for shots in SHOTS]}
    rows |= {named(given): [candidate_key(name, given, shots) for shots in SHOTS] for given in CANDIDATES[name]}
    for label, keys in rows.items():
        values = [number(results.of(names, [key])[0].value or 0.0) for key in keys for names in groups.values()]
        lines.append(f"| {label} | " + " | ".join(values) + " |")
    return lines


def print_accuracy(args: argparse.Namespace) -> None:
    results = run_cells(compute, cells(args.datasets, "val"), args, "val")
    for name in CANDIDATES:
        section(f"{name}: candidates on validation images", candidate_table(results, name))
    results = run_cells(compute, cells(args.datasets, "test"), args)
    for name in CANDIDATES:
        columns = {f"{r}, {k}": (name, k, r, (), "test") for k in SHOTS for r in ("paper", "fast")}
        rows = {f"fast − paper, {k}": ([columns[f"fast, {k}"]], [columns[f"paper, {k}"]]) for k in SHOTS}
        every = {r: [columns[f"{r}, {k}"] for k in SHOTS] for r in ("paper", "fast")}
        rows["fast − paper, mean"] = (every["fast"], every["paper"])
        changed = named(recipe_settings("fast", name))
        title = f"{name}: fast ({changed}) against paper on test images"
        section(title, dataset_table(results, columns), difference_table(results, rows))


def seconds(dataset: str, backbone: str, name: str, shots: int, recipe: str) -> float:
    """Time of one fit, three runs together."""
    data, features = encoded(dataset, backbone)
    entry = find(data.name, data.class_names)
    method = get_method(name)
    settings = method.settings({}, recipe, entry.name if entry else None)
    task = task_of(data, features, backbone, shots, method.abilities.uses_sentences, SEEDS)
    begin = time.perf_counter()
    method.fit(task, settings, list(SEEDS))
    return time.perf_counter() - begin


def print_times(args: argparse.Namespace) -> None:
    lines = ["| method | dataset | classes | images per class | paper, s | fast, s | fast / paper |"]
    lines.append("|---|---|--:|--:|--:|--:|--:|")
    for name in CANDIDATES:
        for dataset in (d for d in TIMED if d in args.datasets):
            seconds(dataset, args.backbone, name, 1, "fast")  # what is loaded once does not count
            for shots in SHOTS:
                fast = statistics.median(seconds(dataset, args.backbone, name, shots, "fast") for _ in range(REPEATS))
                paper = seconds(dataset, args.backbone, name, shots, "paper")
                classes = len(encoded(dataset, args.backbone)[0].class_names)
                parts = [name, dataset, classes, shots, f"{paper:.2f}", f"{fast:.2f}", f"{100 * fast / paper:.1f} %"]
                lines.append("| " + " | ".join(map(str, parts)) + " |")
    section("Seconds of training", lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--times", action="store_true", help="measure times in place of accuracy; wants an idle machine"
    )
    args = arguments(parser)
    (print_times if args.times else print_accuracy)(args)


if __name__ == "__main__":
    start(main)
