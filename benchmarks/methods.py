"""Every method at 1, 2, 4, 8 and 16 images per class: the tables and the figure of ``docs/results/methods.md``.

    BIOMEDCOOP_DATA=FOLDER python benchmarks/methods.py --work WORK --figure docs/results/methods.png > tables.md

From stored features, with the published settings (recipe "paper"). A method that reads sentences gets the 25 of each class that
pretraining has not seen. Methods that need validation images get min(shots, 4) per class, as published. What else is done is in
``study.py``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command import start
from mini_accuracy import SEEDS, unused_sentences
from study import Cell, Results, arguments, dataset_table, difference_table, encoded, loaded, number, run_cells, section

from biomedcoop.data.catalogue import find
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.sampling.few_shot import sample_few_shot, sample_validation
from biomedcoop.errors import UserError
from biomedcoop.features.texts import encode_texts
from biomedcoop.methods import Task, all_methods, get_method

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


def task_of(data: Dataset, features: torch.Tensor, backbone_name: str, shots: int, sentences: bool, seeds: Any) -> Task:
    """Support and validation images of each seed, and the sentences."""
    backbone = loaded(backbone_name)
    drawn = [sample_few_shot(data, max(shots, 1), seed) for seed in seeds]
    val = [v if len(v) else sample_validation(data, t, shots, s) for (t, v), s in zip(drawn, seeds, strict=True)]
    rows, val_rows = np.stack([t for t, _ in drawn]), np.stack(val)
    labels = torch.from_numpy(data.labels)
    words = None
    if sentences:
        own = unused_sentences(data)
        if own is None:
            raise UserError(f"{data.name}: the library has no sentences for its classes")
        flat = encode_texts(backbone, [text for texts in own for text in texts])
        words = torch.from_numpy(flat).view(len(own), -1, backbone.embed_dim)
    return Task(backbone, data.class_names, features[rows], labels[rows], words, features[val_rows], labels[val_rows])


def answers(
    dataset: str, backbone: str, name: str, shots: int, recipe: str = "paper", given: Any = (), split: str = "test"
) -> list[list[int]]:
    """Which images of a split a method answers rightly, [seeds][images]."""
    data, features = encoded(dataset, backbone)
    scored = data.indices(split)
    truth = torch.from_numpy(data.labels[scored])
    method = get_method(name)
    entry = find(data.name, data.class_names)
    settings = method.settings(dict(given), recipe, entry.name if entry else None)
    task = task_of(data, features, backbone, shots, method.abilities.uses_sentences, SEEDS)
    right = []
    for state in method.fit(task, settings, list(SEEDS)):
        with torch.inference_mode():
            right.append((method.logits(state, features[scored], loaded(backbone)).argmax(1) == truth).int().tolist())
    return right


def compute(dataset: str, key: Any, backbone: str) -> list[list[int]]:
    return answers(dataset, backbone, *key)


def columns_at(shots: int) -> dict[str, Any]:
    """Every method, those that learn nothing as they are."""
    return {name: (name, shots if method.abilities.uses_images else 0) for name, method in all_methods().items()}


def print_tables(results: Results, figure: Path | None) -> None:
    groups = results.groups_here()
    for group, names in groups.items():
        lines = ["| method | " + " | ".join(map(str, SHOTS)) + " |", "|---|" + "--:|" * len(SHOTS)]
        for name in all_methods():
            values = [number(results.of(names, [columns_at(k)[name]])[0].value or 0.0) for k in SHOTS]
            lines.append(f"| {name} | " + " | ".join(values) + " |")
        section(f"Mean accuracy of the {len(names)} {group} datasets, by images per class", lines)
    for shots in SHOTS:
        here = columns_at(shots)
        rows = {
            f"{name} − zero-shot": ([key], [here["zero-shot"]]) for name, key in here.items() if name != "zero-shot"
        }
        section(f"{shots} per class", dataset_table(results, here), difference_table(results, rows))
    rows = {
        f"biomedcoop − {name}": ([columns_at(k)["biomedcoop"] for k in SHOTS], [columns_at(k)[name] for k in SHOTS])
        for name in all_methods()
        if name != "biomedcoop"
    }
    section("BiomedCoOp against the others, mean of 1 to 16 per class", difference_table(results, rows))
    if figure is not None and groups:
        draw(results, figure)


def draw(results: Results, figure: Path) -> None:
    """Accuracy by images per class, a panel a group."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    groups = results.groups_here()
    fig, axes = plt.subplots(1, len(groups), figsize=(5.6 * len(groups), 4.6), squeeze=False)
    colours = plt.get_cmap("tab20").colors  # type: ignore[attr-defined]
    for axis, (group, names) in zip(axes[0], groups.items(), strict=True):
        for i, (name, method) in enumerate(all_methods().items()):
            values = [100 * (results.of(names, [columns_at(k)[name]])[0].value or 0.0) for k in SHOTS]
            style = "-o" if method.abilities.uses_images else "--"
            axis.plot(
                SHOTS,
                values,
                style,
                label=name,
                color=colours[i],
                markersize=3.5,
                lw=2.4 if name == "biomedcoop" else 1.2,
            )
        axis.set_xscale("log", base=2)
        axis.set_xticks(SHOTS, [str(k) for k in SHOTS])
        axis.set_xlabel("images per class")
        axis.set_title(f"{len(names)} {group} datasets")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("accuracy, %")
    axes[0][-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=8)
    fig.tight_layout()
    fig.savefig(figure, dpi=110, metadata={"Software": None})
    plt.close(fig)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", type=Path, metavar="FILE", help="write the figure there")
    args = arguments(parser)
    begin = time.monotonic()
    results = run_cells(compute, cells(args.datasets), args)
    print(f"<!-- {(time.monotonic() - begin) / 60:.1f} minutes for what was missing -->\n")
    print_tables(results, args.figure)


if __name__ == "__main__":
    start(main)
