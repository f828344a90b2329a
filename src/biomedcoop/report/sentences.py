"""Sentences of a report that do not judge: what was trained and tested, and how to read the numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator

from biomedcoop.evaluation.comparison import MAJORITY
from biomedcoop.evaluation.wording import count
from biomedcoop.methods import all_methods
from biomedcoop.report.run import RunReport

CONFUSION = "confusion.png"
"""File of the confusion matrix beside a report."""

SIMULATED = (
    "A program drew these images; no patient was imaged. "
    "The numbers show that the software works and say nothing about real examinations."
)

REPEAT = (
    "A command that repeats the run. It may state options that were left to their defaults. "
    "Folders are left out on purpose: put in your own paths."
)

NUMBERS = (
    "Percent, with 95 % intervals in brackets (bootstrap; Wilson for shares of 0 and 100); – marks a value that is not defined on "
    "these test images. The calibration error is the gap between the predicted probability and the share of correct predictions "
    "(expected calibration error, 15 equal-width bins). Lower is better. The calibration error does not measure accuracy, and on "
    "few images it is too high."
)


def setup(report: RunReport) -> str:
    """What was trained and tested."""
    data = report.dataset
    c, learned = len(data.class_names), "needed no training images"
    shown = " ".join(w for w in (data.organ, data.modality) if w)
    images = f"{shown} images ({data.name})" if shown else f"images of {data.name}"
    if report.shots == "all":
        learned = "was trained on all training images"
    elif isinstance(report.shots, int):
        mean = " on average" if report.sampling == "realistic" else ""
        learned = f"was trained on {count(report.shots, 'image')} per class{mean} ({report.shots * c} in total)"
    elif report.shots is not None:
        learned = "was trained on an unknown number of images"
    method = all_methods().get(report.method)
    changes = method is not None and method.abilities.changes_towers
    backbone = f"through the backbone {report.backbone}" if changes else f"on the frozen backbone {report.backbone}"
    if report.trained_on is None:
        content = f"{shown} images" if shown else "images"
        return f"{report.method} {learned}, {backbone}, to tell {c} classes of {content} ({data.name}) apart."
    source = "" if report.shots is None else f" of {report.trained_on}"
    which = "" if report.split == "all" else f"{report.split} "
    trained = f"{report.method} {learned}{source}, {backbone}, to tell {c} classes apart."
    return f"{trained} It is tested here on {which}{images}."


def reading(report: RunReport) -> Iterator[str]:
    """What a reader must know about the numbers."""
    metrics = report.metrics
    if metrics.n_groups is None:
        unit = "test images; if several show one patient, the true uncertainty is larger"
    else:
        unit = f"{metrics.n_groups} groups (such as patients) that the test images come from"
    if metrics.n_groups != 1:
        yield f"The intervals come from {metrics.n_bootstrap} resamples of the {unit}."
    if metrics.n_drawn is not None:
        yield (
            f"The folds of a cross-validation share training images, so a resample draws only {metrics.n_drawn}: this makes the "
            "intervals about 1.5 times as wide (Nadeau and Bengio 2003)."
        )
    yield "“Beyond chance” means that the 95 % interval of the paired difference excludes zero, on ten or more images or groups."
    if report.shots is not None:
        yield f"The intervals cover the choice of test images only. Other training images give other results{_other_draws(report)}."
    if any(
        e.value == e.low == e.high == 1 for e in (metrics.macro_f1, metrics.auroc, *(c.auroc for c in metrics.classes))
    ):
        yield "An AUROC or macro-F1 of 100.0–100.0 means that these images show no error; other images may."
    if MAJORITY in report.rows:
        yield (
            f"The row “{MAJORITY}” always predicts the largest class of the test split: the best accuracy without "
            "looking at any image."
        )
    yield from ([f"{report.unlike}."] if report.unlike else [])
    yield from report.notes


def _other_draws(report: RunReport) -> str:
    tested = report.comparison
    if not tested.by_run:
        return f" than those of seed {report.seed} here; train with several seeds to see the difference"
    return f": the numbers are the means of {tested.runs}, and the table of standard deviations shows the difference"


def settings_rows(report: RunReport) -> list[list[str]]:
    """Name and value of each setting of the run."""
    shots = {"None": "none", "all": "all training images"}.get(str(report.shots), str(report.shots))
    first = [["method", report.method], ["backbone", report.backbone], ["backbone fingerprint", report.fingerprint]]
    return [
        *first,
        ["shots", shots],
        ["seed", str(report.seed)],
        *(
            [name, json.dumps(value) if not isinstance(value, str) else value]
            for name, value in report.settings.items()
        ),
    ]
