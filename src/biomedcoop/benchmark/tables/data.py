"""The datasets of a benchmark: their test images, and what makes results on them look better than they are."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from biomedcoop.benchmark.results import BenchmarkResults
from biomedcoop.benchmark.tables.result_table import Cell, ResultTable
from biomedcoop.data import catalogue
from biomedcoop.data.catalogue import CatalogueEntry
from biomedcoop.data.simulate.load import PREFIX


def data_table(results: BenchmarkResults) -> ResultTable:
    """Every scored set: classes, images, groups of related images, largest class, licence; the caveats are its notes."""
    rows: list[list[Cell]] = []
    notes: dict[str, str] = {}
    for name, test in results.tests.items():
        counts = np.bincount(test.labels, minlength=len(test.class_names))
        groups = len(np.unique(test.groups)) if test.groups is not None else len(test.labels)
        share = f"{100 * counts.max() / max(1, counts.sum()):.1f}"
        entry, dataset = _entry(name, results), _dataset(name)
        licence = "simulated" if dataset in results.simulated else entry.licence if entry else "–"
        rows.append([name, len(test.class_names), len(test.labels), groups, share, licence])
        if entry and entry.caveat:
            notes[dataset] = f"{dataset}: {entry.caveat}"
    for asked in results.asked:
        called = asked if asked.startswith(PREFIX) else Path(asked).name
        if called.casefold() != (name := results.name_of(asked)).casefold():
            notes.setdefault(f"name of {name}", f"{name}: '{called}' in the protocol.")
    heads = ["scored set", "classes", "test images", "groups", "largest class, %", "licence"]
    return ResultTable("data", "Scored sets", heads, rows, list(notes.values()))


def runs_csv(results: BenchmarkResults) -> str:
    """Every finished run and scored set with its metrics, as CSV."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    metrics = ["images", "accuracy", "balanced_accuracy", "macro_f1", "ece"]
    writer.writerow(["backbone", "method", "variant", "dataset", "shots", "seed", "scored set", *metrics])
    writer.writerows(_lines(results, metrics))
    return file.getvalue()


def _lines(results: BenchmarkResults, metrics: list[str]) -> Iterator[list[object]]:
    place = {row: number for number, row in enumerate(results.rows)}
    for run in sorted(results.runs, key=lambda run: (place[run.row], run.dataset, run.shots, run.seed)):
        for test, values in run.tests.items():
            facts = [*run.row[:2], run.row.variant or "", run.dataset, run.shots, run.seed, test]
            yield [*facts, *(values.get(metric, "") for metric in metrics)]


def _entry(test: str, results: BenchmarkResults) -> CatalogueEntry | None:
    """The published dataset of a scored set; a user's folder of the same name has other classes, and an alias is no name of it."""
    dataset = _dataset(test)
    entry = catalogue.find(dataset, results.tests[test].class_names)
    published = entry is not None and entry.name == dataset and dataset not in results.simulated
    return entry if published else None


def _dataset(test: str) -> str:
    """The dataset of a scored set: "busi" of "busi novel"."""
    return test.removesuffix(" base").removesuffix(" novel")
