"""The datasets of a benchmark: their test images, and what makes results on them look better than they are."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import numpy as np

from biomedcoop.benchmark.results import BenchmarkResults
from biomedcoop.benchmark.tables.result_table import Cell, ResultTable
from biomedcoop.data import catalogue


def data_table(results: BenchmarkResults) -> ResultTable:
    """Every scored set: classes, images, groups of related images, largest class, licence; the caveats are its notes."""
    rows: list[list[Cell]] = []
    notes: dict[str, str] = {}
    for name, test in results.tests.items():
        counts = np.bincount(test.labels, minlength=len(test.class_names))
        groups = len(np.unique(test.groups)) if test.groups is not None else len(test.labels)
        share = f"{100 * counts.max() / max(1, counts.sum()):.1f}"
        # a user's folder may have the name of a published dataset, but then it has other classes
        entry = catalogue.find(dataset := _dataset(name), test.class_names)
        rows.append([name, len(test.class_names), len(test.labels), groups, share, entry.licence if entry else "–"])
        if entry and entry.caveat:
            notes[dataset] = f"{dataset}: {entry.caveat}"
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


def _dataset(test: str) -> str:
    """The dataset of a scored set: "busi" of "busi novel"."""
    return test.removesuffix(" base").removesuffix(" novel")
