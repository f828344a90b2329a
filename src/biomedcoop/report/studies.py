"""The tables of a study: accuracy of every dataset, and paired differences with both intervals. Numbers are in percent."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from biomedcoop.evaluation.bootstrap import Estimate
from biomedcoop.evaluation.study.results import Results
from biomedcoop.evaluation.wording import number, percent
from biomedcoop.report.table import Table

Keys = Sequence[Hashable]


def dataset_table(results: Results, columns: Mapping[str, Hashable]) -> Table:
    """Accuracy of every dataset as the mean over seeds, and the mean of each complete collection.

    Args:
        columns: column name -> key of the condition.
    """
    rows = []
    for collection, datasets in results.collections.items():
        for dataset in datasets:
            values = [number(results.right(dataset, key).mean()) for key in columns.values()]
            rows.append([collection, dataset, *values])
        if collection in results.complete:
            means = [f"**{number(results.mean(datasets, [key]).value)}**" for key in columns.values()]
            rows.append([collection, "**mean**", *means])
    return Table(["group", "dataset", *columns], rows, "ll" + "r" * len(columns))


def mean_table(results: Results, name: str, rows: Mapping[str, Mapping[str, Hashable]]) -> Table:
    """Mean accuracy of each complete collection: one row per condition, one column per collection and variant.

    Args:
        name: header of the column with the row names.
        rows: row name -> variant -> key; a missing variant gets a dash.
    """
    variants = list(dict.fromkeys(variant for keys in rows.values() for variant in keys))
    cells = [
        [
            row,
            *(
                number(results.mean(datasets, [keys[variant]]).value) if variant in keys else "–"
                for datasets in results.complete.values()
                for variant in variants
            ),
        ]
        for row, keys in rows.items()
    ]
    return Table([name, *(f"{c}, {variant}" for c in results.complete for variant in variants)], cells)


def difference_table(results: Results, rows: Mapping[str, tuple[Keys, Keys]]) -> Table:
    """Means of paired differences with both intervals, for each complete collection.

    Args:
        rows: row name -> (keys, keys to subtract).
    """
    cells = []
    for name, (keys, minus) in rows.items():
        means = [results.mean(datasets, keys, minus) for datasets in results.complete.values()]
        cells.append(
            [name, *(cell for m in means for cell in (percent(m.over_images, signed=True), _span(m.over_datasets)))]
        )
    head = [f"{c}: {what}" for c in results.complete for what in ("points (over images)", "over datasets")]
    return Table(["", *head], cells)


def _span(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return "–"
    return f"{number(estimate.low, signed=True)} to {number(estimate.high, signed=True)}"
