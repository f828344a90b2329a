"""What the studies share: cells computed once and kept in files, means over datasets and seeds, paired differences, tables.

A cell is one dataset under one condition (a key), all seeds together: which test images are answered rightly, [seeds][images].
Three seeds; a seed draws the images and the order of the batches. All test images are scored. Differences are paired: the same
images, draws and seeds. Two 95 % intervals: over test images (bootstrap over groups of related ones, mean over the seeds), and over
datasets (Student's t over the datasets' means: what another dataset would change; seeds of a dataset are not independent, and for
what learns nothing they are one). Seen and unseen datasets are never averaged together.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from command import positive
from mini_accuracy import GROUPS, Floats, complete_groups, estimated, mean_estimate, related
from mini_tables import percent

from biomedcoop import load_dataset
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.data.dataset import Dataset
from biomedcoop.evaluation.bootstrap import Estimate
from biomedcoop.features.images import encode_images
from biomedcoop.output import write_atomically

STUDENT = {5: 2.776, 6: 2.571}
"""97.5 % quantile of Student's t with n - 1 degrees of freedom."""

Compute = Callable[[str, Hashable, str], list[list[int]]]
"""(dataset, key, backbone) -> which scored images are answered rightly, [seeds][images]."""


@dataclass(frozen=True)
class Cell:
    """One dataset under one condition.

    Attributes:
        key: the condition, as ``compute`` takes it.
        name: of the file.
        cost: the dearest cells come first.
    """

    dataset: str
    key: Hashable
    name: str
    cost: float = 0.0


@cache
def loaded(backbone: str) -> Backbone:
    return load_backbone(backbone)


@cache
def encoded(dataset: str, backbone: str) -> tuple[Dataset, torch.Tensor]:
    """A dataset and the raw features of all its images."""
    data = load_dataset(dataset)
    return data, torch.from_numpy(encode_images(loaded(backbone), data))


def arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Those that every study has, and the datasets checked."""
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="of the results, one file a cell")
    parser.add_argument("--backbone", default="mini", help="a name, or a folder in open_clip layout")
    parser.add_argument("--datasets", help="only these, separated by commas")
    parser.add_argument("--jobs", type=positive, default=os.cpu_count() or 1, help="processes at once")
    args = parser.parse_args()
    every = [name for names in GROUPS.values() for name in names]
    args.datasets = args.datasets.split(",") if args.datasets else every
    if unknown := set(args.datasets) - set(every):
        parser.error(f"no dataset {sorted(unknown)[0]!r} here; known: {', '.join(every)}")
    return args


def run_cells(compute: Compute, cells: Sequence[Cell], args: argparse.Namespace, split: str = "test") -> Results:
    """Compute what is not in ``args.work`` yet, on ``args.jobs`` processes of one thread."""
    # cells of another backbone are other cells
    work = args.work / load_backbone(args.backbone).fingerprint[:12]
    work.mkdir(parents=True, exist_ok=True)
    for name in args.datasets:  # images once, before several processes ask for them
        encoded(name, args.backbone)
    todo = [c for c in sorted(cells, key=lambda c: -c.cost) if not (work / f"{c.name}.json").is_file()]
    start = time.monotonic()
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(_run, compute, cell, args.backbone, work) for cell in todo]
        for done, future in enumerate(as_completed(waiting), start=1):
            name, seconds = future.result()
            minutes = (time.monotonic() - start) / 60
            print(f"{done}/{len(todo)} {name} {seconds:.1f} s, {minutes:.1f} min in all", file=sys.stderr, flush=True)
    scored = {name: (data := encoded(name, args.backbone)[0]).select(data.indices(split)) for name in args.datasets}
    return Results({name: related(data) for name, data in scored.items()}, work, cells)


def _run(compute: Compute, cell: Cell, backbone: str, work: Path) -> tuple[str, float]:
    torch.set_num_threads(1)  # the processes share the cores
    start = time.monotonic()
    right = compute(cell.dataset, cell.key, backbone)
    write_atomically(work / f"{cell.name}.json", json.dumps(right).encode())
    return cell.name, time.monotonic() - start


class Results:
    """All cells, and means and paired differences of them.

    Args:
        groups: group of each scored image of every dataset.
        work: holds the cells.
        cells: all of them.
    """

    def __init__(self, groups: dict[str, npt.NDArray[np.str_]], work: Path, cells: Sequence[Cell]) -> None:
        self.groups, self.work = groups, work
        self.files = {(cell.dataset, cell.key): work / f"{cell.name}.json" for cell in cells}

    def right(self, dataset: str, key: Hashable) -> Floats:
        """[seeds, images]."""
        return np.array(json.loads(self.files[dataset, key].read_text(encoding="utf-8")), dtype=float)

    def of(
        self, names: Sequence[str], keys: Sequence[Hashable], minus: Sequence[Hashable] = ()
    ) -> tuple[Estimate, str]:
        """Mean over datasets, seeds and keys (less those of others), its interval over images, and that over datasets."""
        values, samples = [], []
        for name in names:
            scores = np.mean([self.right(name, key) for key in keys], axis=0)
            if minus:
                scores = scores - np.mean([self.right(name, key) for key in minus], axis=0)
            found, drawn = estimated({"gain": scores.mean(0)}, list(self.groups).index(name), self.groups[name])
            values.append(found["gain"].value or 0.0)
            samples.append(drawn["gain"])
        half = STUDENT.get(len(values), float("nan")) * np.std(values, ddof=1) / len(values) ** 0.5
        middle = float(np.mean(values))
        spread = (
            "–" if np.isnan(half) else f"{100 * (middle - half):+.1f} to {100 * (middle + half):+.1f}".replace("-", "−")
        )
        return mean_estimate(values, samples), spread

    def groups_here(self) -> dict[str, list[str]]:
        """The datasets of each group that is complete."""
        return {group: list(GROUPS[group]) for group in complete_groups(self.groups)}


def number(value: float) -> str:
    return f"{100 * value:.1f}".replace("-", "−")


def dataset_table(results: Results, columns: dict[str, Hashable]) -> list[str]:
    """Accuracy of every dataset (mean of the seeds) and the mean of each group."""
    lines = ["| group | dataset | " + " | ".join(columns) + " |", "|---|---|" + "--:|" * len(columns)]
    for group, names in GROUPS.items():
        here = [name for name in names if name in results.groups]
        for name in here:
            values = [number(results.right(name, key).mean()) for key in columns.values()]
            lines.append(f"| {group} | {name} | " + " | ".join(values) + " |")
        if here == list(names):
            means = [f"**{number(results.of(here, [key])[0].value or 0.0)}**" for key in columns.values()]
            lines.append(f"| {group} | **mean** | " + " | ".join(means) + " |")
    return lines


def difference_table(results: Results, rows: dict[str, tuple[Sequence[Hashable], Sequence[Hashable]]]) -> list[str]:
    """A row for each (what, minus what), with both intervals, for each complete group."""
    groups = results.groups_here()
    head = [f"{group}: {what}" for group in groups for what in ("points (over images)", "over datasets")]
    lines = ["| | " + " | ".join(head) + " |", "|---|" + "--:|" * len(head)]
    for label, (keys, minus) in rows.items():
        parts = []
        for names in groups.values():
            estimate, spread = results.of(names, keys, minus)
            parts += [percent(estimate, sign=True), spread]
        lines.append(f"| {label} | " + " | ".join(parts) + " |")
    return lines


def section(title: str, *parts: str | Sequence[str]) -> None:
    for part in (f"### {title}", *parts):
        print(part if isinstance(part, str) else "\n".join(part), end="\n\n", flush=True)
