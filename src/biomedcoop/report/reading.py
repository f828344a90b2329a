"""A report read back from the folder of a run or an evaluation."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from biomedcoop.errors import UserError
from biomedcoop.evaluation.bootstrap import Estimate
from biomedcoop.evaluation.calibration import Calibration
from biomedcoop.evaluation.comparison import Comparison, Difference, Predictions
from biomedcoop.evaluation.coverage import Coverage
from biomedcoop.evaluation.metrics import Metrics
from biomedcoop.evaluation.subgroups import Subgroups
from biomedcoop.evaluation.wording import count
from biomedcoop.report.run import DatasetSummary, RunReport

OF_EVERY_REPORT = ("metrics.json", "predictions.csv")
OF_TRAINING = ("run.json", "split.json", "model")
"""Names in a folder of ``train`` that a folder of ``evaluate`` lacks."""


def read_report(folder: str | Path) -> RunReport:
    """Read the report of a run folder; its comparison holds the predictions of the reported method alone.

    Raises:
        UserError: a file is missing or is not that of such a folder.

    Example:
        >>> import tempfile
        >>> import biomedcoop as bc
        >>> data = "simulated:breast-ultrasound?train=4&val=1&test=2"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = bc.train(data, f"{folder}/run", method="tip-adapter", shots=2, n_bootstrap=40, html=False)
        ...     read_report(f"{folder}/run").verdict == report.verdict
        True
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"{folder}: there is no such folder; give a folder that 'train --out' or 'evaluate --out' wrote"
        )
    if (folder / "classifier.json").is_file() and (folder.absolute().parent / "metrics.json").is_file():
        raise UserError(f"{folder} is the model of a run; give the folder above it: {folder.parent}")
    for name in OF_EVERY_REPORT:
        _check(folder, name)
    values = read_json(folder / "metrics.json")
    if not isinstance(values, dict) or "rows" not in values:
        raise UserError(f"{folder / 'metrics.json'}: these are not the metrics of a run; train or evaluate again")
    if not values.get("evaluation"):
        for name in (*OF_TRAINING, *(["few_shot.json"] if values.get("shots") is not None else [])):
            _check(folder, name)
    try:
        return _report(values, _predictions(values, folder / "predictions.csv"))
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"{folder / 'metrics.json'}: not the metrics of this version ({error}); train again") from error


def read_json(path: Path) -> Any:
    """The content of a JSON file of a run folder.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable JSON file ({error}); train or evaluate again") from error


def _check(folder: Path, name: str) -> None:
    if not (folder / name).exists():
        what = "folder" if name == "model" else "file"
        raise UserError(
            f"{folder}: the {what} {name} is missing; give a complete folder of 'train' or 'evaluate', or run it again"
        )


def _predictions(values: Mapping[str, Any], path: Path) -> Predictions:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    names = tuple(values["class_names"])
    if not rows:
        raise UserError(f"{path}: it has no row; train or evaluate again")
    seeds = tuple(values.get("seeds", ()))
    runs = max(1, len({row.get("seed", "") for row in rows}))
    tested = values["rows"][values["method"]]
    expected = tested["n_images"] * tested.get("n_runs", 1)
    if len(rows) != expected:
        raise UserError(
            f"{path}: it has {count(len(rows), 'row')}, but metrics.json beside it has {count(expected, 'prediction')}; "
            "restore the file, or train or evaluate again"
        )
    first = rows[: len(rows) // runs]
    try:
        p = np.array([[float(row[f"p_{name}"]) for name in names] for row in rows], dtype=np.float32)
        labels = np.array([names.index(row["truth"]) for row in first], dtype=np.int64)
        keys = tuple(row["path"] for row in first)
        return Predictions(
            keys,
            labels,
            names,
            {values["method"]: p.reshape(runs, len(first), len(names))},
            np.array([row["group"] for row in first]) if "group" in first[0] else None,
            unlike=np.array([row["unlike_training"] == "1" for row in first])
            if "unlike_training" in first[0]
            else None,
            seeds=seeds,
            folds=values.get("folds"),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(
            f"{path}: these are not the predictions of this run ({error}); train or evaluate again"
        ) from error


def _report(values: Mapping[str, Any], predictions: Predictions) -> RunReport:
    accuracy, balanced = values["accuracy_differences"], values["balanced_accuracy_differences"]
    differences = {
        name: Difference(Estimate(**accuracy[name]), Estimate(**balanced[name]), values["changed_answers"][name])
        for name in accuracy
    }
    rows = {name: Metrics.from_dict(entry) for name, entry in values["rows"].items()}
    subgroups = values.get("subgroups")
    comparison = Comparison(
        predictions,
        rows,
        differences,
        None if subgroups is None else Subgroups.from_dict(subgroups),
        values.get("by_seed", {}),
        None if (calibration := values.get("calibration")) is None else Calibration.from_dict(calibration),
        None if (coverage := values.get("prediction_sets")) is None else Coverage.from_dict(coverage),
    )
    return RunReport(
        title=values.get("title", f"{values['method']} on {values['dataset']}"),
        dataset=DatasetSummary(
            name=values["dataset"],
            class_names=tuple(values["class_names"]),
            counts=values["counts"],
            simulated=values["simulated"],
            modality=values.get("modality"),
            organ=values.get("organ"),
            notes=tuple(values.get("dataset_notes", ())),
            image_notes=tuple(values.get("image_notes", ())),
        ),
        method=values["method"],
        settings=values["settings"],
        backbone=values["backbone"],
        fingerprint=values["fingerprint"],
        shots=values["shots"],
        seed=values["seed"],
        versions=values["versions"],
        comparison=comparison,
        recipe=values.get("recipe"),
        sampling=values.get("sampling", "equal"),
        split=values.get("split", "test"),
        trained_on=values.get("trained_on") if values.get("evaluation") else None,
        unlike=values.get("unlike", ""),
        leaks=tuple(values.get("leaks", ())),
        notes=tuple(values.get("report_notes", ())),
        command=values.get("command", ""),
        text_tower=values.get("text_tower", True),
        tried=tuple(values.get("tried", ())),
        may_calibrate=values.get("may_calibrate", False),
    )
