"""Tables of scores: means of the collections, and every dataset by itself."""

from __future__ import annotations

from collections.abc import Sequence

from biomedcoop.benchmark.published import differing, published, published_by_dataset
from biomedcoop.benchmark.results import BenchmarkResults, TableRow
from biomedcoop.benchmark.scores import (
    Measure,
    Unit,
    average,
    cell,
    collections,
    described,
    images_per_class,
    measures,
    planned_collections,
    units,
)
from biomedcoop.benchmark.tables.result_table import Cell, ResultTable

METRICS = {"accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy", "macro_f1": "Macro F1"}


def rows_of(results: BenchmarkResults, backbone: str, variants: bool = True) -> list[TableRow]:
    """The rows of a backbone, with or without variants."""
    return [row for row in results.rows if row.backbone == backbone and (variants or row.variant is None)]


def mean_tables(results: BenchmarkResults, backbone: str, metric: str = "accuracy") -> list[ResultTable]:
    """Means over each collection of datasets: a row for each method, a column for each measure."""
    tables = []
    for name, over in collections(results).items():
        columns = measures(results)
        rows: list[list[Cell]] = [
            [row.name, *(average(results, row, over, measure, metric) for measure in columns)]
            for row in rows_of(results, backbone)
        ]
        title = _titled(results, metric, f"mean of {name} ({len(over)})", backbone)
        file = file_name(metric, name, backbone if len(results.backbones) > 1 else "")
        tables.append(ResultTable(file, title, ["method", *(m.name for m in columns)], rows, _left_out(results, name)))
    return tables


def unit_table(results: BenchmarkResults, backbone: str, unit: Unit, metric: str = "accuracy") -> ResultTable:
    """One dataset: a row for each method, a column for each measure."""
    columns = [measure for measure in measures(results) if not measure.of_means]
    rows: list[list[Cell]] = [
        [row.name, *(cell(results, row, unit, measure, metric) for measure in columns)]
        for row in rows_of(results, backbone)
    ]
    file = file_name(metric, "of", unit.label, backbone if len(results.backbones) > 1 else "")
    title = _titled(results, metric, unit.label, backbone)
    return ResultTable(file, title, ["method", *(m.name for m in columns)], rows)


def wide_table(results: BenchmarkResults, backbone: str, measure: Measure) -> ResultTable:
    """One measure: a row for each method, a column for each dataset and for the mean of each collection."""
    every, named = units(results), collections(results)
    rows: list[list[Cell]] = [
        [
            row.name,
            *(cell(results, row, unit, measure) for unit in every),
            *(average(results, row, over, measure) for over in named.values()),
        ]
        for row in rows_of(results, backbone)
    ]
    file = file_name("datasets", measure.name, backbone if len(results.backbones) > 1 else "")
    notes = [note for name in named for note in _left_out(results, name)]
    columns = ["method", *(unit.label for unit in every), *(f"mean of {name}" for name in named)]
    return ResultTable(file, f"Accuracy, %, every dataset, {described(results, measure)}", columns, rows, notes)


def backbone_table(results: BenchmarkResults, over: Sequence[Unit], name: str) -> ResultTable:
    """All backbones: a row for each method and backbone, a column for each measure."""
    columns = measures(results)
    methods = dict.fromkeys((row.method, row.variant) for row in results.rows)
    ordered = [row for method in methods for row in results.rows if (row.method, row.variant) == method]
    rows: list[list[Cell]] = [
        [row.name, row.backbone, *(average(results, row, over, measure) for measure in columns)] for row in ordered
    ]
    heads = ["method", "backbone", *(m.name for m in columns)]
    title, notes = f"Accuracy, %, by backbone, mean of {name} ({len(over)})", _left_out(results, name)
    return ResultTable(file_name("backbones", name), title, heads, rows, notes, texts=2)


def published_table(results: BenchmarkResults, backbone: str) -> ResultTable | None:
    """Our means beside the published ones, for methods whose settings are the paper's; None if there is none."""
    columns = [
        m for m in measures(results) if results.kind == "base-to-novel" or str(m.shots) in map(str, range(1, 17))
    ]
    everything = [Unit(dataset, dataset) for dataset in results.datasets]
    rows: list[list[Cell]] = []
    for row in rows_of(results, backbone, variants=False):
        theirs = published(results.kind).get(row.method)
        if theirs is None or differing(results, row):
            continue
        rows.append([row.name, "here", *(average(results, row, everything, m) for m in columns)])
        rows.append(["", "published", *(_published_score(theirs.get(m.name)) for m in columns)])
    if not rows:
        return None
    return ResultTable(
        "published", "Beside the published means, %", ["method", "", *(m.name for m in columns)], rows, texts=2
    )


def published_dataset_table(results: BenchmarkResults, backbone: str) -> ResultTable | None:
    """BiomedCoOp with 16 shots beside the published values of each dataset; None if no setting is the paper's."""
    row, measure = TableRow(backbone, "biomedcoop"), Measure("16", 16)
    rows: list[list[Cell]] = []
    if results.kind == "few-shot" and 16 in results.shots and row in results.rows:
        for dataset, (mean, std) in published_by_dataset().items():
            if dataset in results.datasets and not differing(results, row, dataset):
                ours = cell(results, row, Unit(dataset, dataset), measure)
                rows.append([dataset, ours, f"{mean:.2f} ± {std:.2f}"])
    if not rows:
        return None
    title = "BiomedCoOp with 16 images per class beside the published values, %"
    return ResultTable("published-datasets", title, ["dataset", "here", "published"], rows)


def file_name(*parts: str) -> str:
    """Parts of a name as a file name without ending."""
    text = "-".join(part for part in parts if part)
    return "".join(sign if sign.isalnum() or sign in "-_+" else "-" for sign in text.replace(" → ", "-to-")).lower()


def _left_out(results: BenchmarkResults, name: str) -> list[str]:
    """A sentence about the datasets of a collection that its mean leaves out; none for none."""
    kept = collections(results)[name]
    out = ", ".join(unit.label for unit in planned_collections(results)[name] if unit not in kept)
    return [f"The mean of {name} leaves out, because a method has no results of them: {out}."] if out else []


def _published_score(value: float | None) -> Cell:
    return None if value is None else f"{value:.2f}"


def _titled(results: BenchmarkResults, metric: str, what: str, backbone: str) -> str:
    columns = "" if results.kind == "base-to-novel" else f", by {images_per_class(results)}"
    return f"{METRICS[metric]}, %, {what}{columns}{f', {backbone}' if len(results.backbones) > 1 else ''}"
