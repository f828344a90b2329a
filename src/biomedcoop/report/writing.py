"""The files of a report: ``report.md``, ``metrics.json``, ``predictions.csv`` and the confusion figure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from biomedcoop.classifier.predictions import set_cells
from biomedcoop.data.tables.writing import Row, write_table
from biomedcoop.errors import UserError
from biomedcoop.evaluation.bootstrap import resampling_units
from biomedcoop.evaluation.comparison import Predictions
from biomedcoop.output import write_atomically
from biomedcoop.report.figures import confusion_figure
from biomedcoop.report.markdown import render
from biomedcoop.report.run import RunReport
from biomedcoop.report.sentences import CONFUSION


def write_report(report: RunReport, folder: str | Path) -> Path:
    """Write ``report.md``, ``metrics.json``, the confusion figure and ``predictions.csv``; returns the path of ``report.md``.

    ``predictions.csv`` has one row per test image: its name (``path``), the true class (``truth``), the answer of the reported
    method (``prediction``), its probability for every class (``p_<class name>``) and, where it is known, whether the image is
    unlike the training images (``unlike_training``), and a number for its group (``group``).
    With several runs it has a row per image and run, and the seed of the run
    (``seed``). It is the only one that names images; ``metrics.json`` holds the same rows
    without names, in the same order.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}; choose another one") from error
    title = f"{report.method} on {report.dataset.name}" + (" (simulated images)" if report.dataset.simulated else "")
    title += f", mean of {report.comparison.runs}" if report.metrics.n_runs > 1 else ""
    confusion_figure(report.metrics, folder / CONFUSION, title)
    write_atomically(folder / "metrics.json", _metrics(report).encode())
    predictions = report.comparison.predictions
    rows = list(_rows(predictions))
    write_table(rows, list(rows[0]), folder / "predictions.csv")
    write_atomically(folder / "report.md", render(report).encode())
    return folder / "report.md"


def _metrics(report: RunReport) -> str:
    """The text of ``metrics.json``, with a line for the prediction of each image."""
    text = json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    rows = ({key: value for key, value in row.items() if key != "path"} for row in _rows(report.comparison.predictions))
    lines = ",\n    ".join(json.dumps(row, ensure_ascii=False) for row in rows)
    return f'{text[:-2]},\n  "predictions": [\n    {lines}\n  ]\n}}\n'


def _rows(predictions: Predictions) -> Iterator[Row]:
    names = predictions.class_names
    units = None if predictions.groups is None else resampling_units(len(predictions.labels), predictions.groups)
    seeds = predictions.seeds if len(predictions.seeds) > 1 else (None,)
    for run, (seed, probabilities) in enumerate(zip(seeds, predictions.runs(predictions.method), strict=True)):
        for number, (key, label, p) in enumerate(zip(predictions.keys, predictions.labels, probabilities, strict=True)):
            row: Row = {} if seed is None else {"seed": seed}
            row |= {"path": key, "truth": names[label], "prediction": names[int(p.argmax())]}
            row |= {f"p_{name}": round(float(value), 6) for name, value in zip(names, p, strict=True)}
            if predictions.unlike is not None:
                row["unlike_training"] = int(predictions.unlike[number])
            if predictions.members is not None:
                row |= set_cells(names, predictions.members[run, number])
            if units is not None:
                row["group"] = int(units[number])
            yield row
