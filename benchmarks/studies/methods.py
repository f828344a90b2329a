"""Every method at 1, 2, 4, 8 and 16 images per class: ``docs/results/methods.md``.

    BIOMEDCOOP_DATA=FOLDER python -m benchmarks.studies.methods --work WORK --figure docs/results/methods.png --page

From stored features, with the published settings (recipe "paper"). A method that reads sentences gets the 25 of each class that
pretraining has not seen. Methods that need validation images get min(shots, 4) per class, as published.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.command import start
from benchmarks.datasets import GROUPS, SEEDS, unused_sentences
from benchmarks.studies.study import arguments, run, show
from benchmarks.tasks import right_answers, settings_of, task_of
from biomedcoop.data.readers.load import load_dataset
from biomedcoop.evaluation.study.cells import Answers, Cell
from biomedcoop.evaluation.study.inputs import encoded, loaded
from biomedcoop.evaluation.study.results import Results
from biomedcoop.evaluation.wording import number
from biomedcoop.methods import all_methods, get_method
from biomedcoop.report.figures import write_figure
from biomedcoop.report.studies import dataset_table, difference_table
from biomedcoop.report.table import Table

SHOTS = (1, 2, 4, 8, 16)
COST = {"biomedcoop": 8.0, "cocoop": 12.0, "linear-probe": 2.0, "tip-adapter-f": 2.0}


def cells(datasets: list[str]) -> list[Cell]:
    """Methods that learn from no image have one cell a dataset, with 0 shots."""
    found = []
    for dataset in datasets:
        for name, method in all_methods().items():
            for shots in SHOTS if method.abilities.uses_images else (0,):
                found.append(Cell(dataset, (name, shots), f"{dataset}-{name}-{shots}", shots * COST.get(name, 1.0)))
    return found


def answers(
    dataset: str, backbone: str, name: str, shots: int, recipe: str = "paper", given: Any = (), split: str = "test"
) -> Answers:
    """Which images of a split a method answers rightly, [seeds][images]."""
    data, features = encoded(dataset, backbone)
    scored = data.indices(split)
    sentences = unused_sentences(data) if get_method(name).abilities.uses_sentences else None
    task = task_of(data, features, loaded(backbone), shots, sentences, SEEDS)
    labels = torch.from_numpy(data.labels[scored])
    return right_answers(name, task, settings_of(name, data, recipe, given), SEEDS, features[scored], labels)


def compute(dataset: str, key: Any, backbone: str) -> Answers:
    return answers(dataset, backbone, *key)


def columns_at(shots: int) -> dict[str, Any]:
    """Every method, those that learn nothing as they are."""
    return {name: (name, shots if method.abilities.uses_images else 0) for name, method in all_methods().items()}


def tables(results: Results) -> Iterator[tuple[str, Table]]:
    for group, datasets in results.complete.items():
        rows = [
            [name, *(number(results.mean(datasets, [columns_at(k)[name]]).value) for k in SHOTS)]
            for name in all_methods()
        ]
        yield f"mean of {group}", Table(["method", *map(str, SHOTS)], rows)
    for shots in SHOTS:
        here = columns_at(shots)
        yield f"{shots} per class", dataset_table(results, here)
        rest = {name: key for name, key in here.items() if name != "zero-shot"}
        differences = {f"{name} − zero-shot": ([key], [here["zero-shot"]]) for name, key in rest.items()}
        yield f"{shots} per class, differences", difference_table(results, differences)
    every = {name: [columns_at(k)[name] for k in SHOTS] for name in all_methods()}
    own = every.pop("biomedcoop")
    differences = {f"biomedcoop − {name}": (own, keys) for name, keys in every.items()}
    yield "biomedcoop and the others", difference_table(results, differences)


def largest_class(datasets: Collection[str]) -> Table:
    """Accuracy of the answer that is always the largest class of the test images."""
    rows = []
    for group, names in GROUPS.items():
        for name in [name for name in names if name in datasets]:
            counts = load_dataset(name).counts("test")
            rows.append([group, name, number(counts.max() / counts.sum())])
    return Table(["group", "dataset", "largest class"], rows, "llr")


def draw(results: Results, path: Path) -> None:
    """Accuracy by images per class, a panel a group."""
    import matplotlib

    colours = matplotlib.colormaps["tab20"].colors  # type: ignore[attr-defined]

    def panels(figure: Any) -> None:
        axes = figure.subplots(1, len(results.complete), squeeze=False)[0]
        for axis, (group, datasets) in zip(axes, results.complete.items(), strict=True):
            for (name, method), colour in zip(all_methods().items(), colours, strict=False):
                values = [100 * results.mean(datasets, [columns_at(k)[name]]).value for k in SHOTS]
                style = "-o" if method.abilities.uses_images else "--"
                width = 2.4 if name == "biomedcoop" else 1.2
                axis.plot(SHOTS, values, style, label=name, color=colour, markersize=3.5, lw=width)
            axis.set_xscale("log", base=2)
            axis.set_xticks(SHOTS, [str(k) for k in SHOTS])
            axis.set_xlabel("images per class")
            axis.set_title(f"{len(datasets)} {group} datasets")
            axis.grid(alpha=0.3)
        axes[0].set_ylabel("accuracy, %")
        axes[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=8)

    write_figure(panels, (5.6 * len(results.complete), 4.6), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", type=Path, metavar="FILE", help="write the figure there")
    args = arguments(parser)
    results = run(compute, cells(args.datasets), args)
    show("methods", {**dict(tables(results)), "largest class": largest_class(args.datasets)}, args)
    if args.figure is not None and results.complete:
        draw(results, args.figure)


if __name__ == "__main__":
    start(main)
