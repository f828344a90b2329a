"""The learning curve of a run folder, or the reason why there is none.

A run folder keeps its curve in ``learning_curve.json``, so that its page can be written again without training.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from biomedcoop.errors import UserError
from biomedcoop.evaluation.learning_curve import LearningCurve, NoCurve, learning_curve
from biomedcoop.output import write_atomically
from biomedcoop.progress import Progress, counting
from biomedcoop.report.html.sources import Sources
from biomedcoop.report.run import RunReport
from biomedcoop.tasks.request import FitRequest
from biomedcoop.version import __version__

CURVE = "learning_curve.json"

DECIDES = ("model/classifier.json", "few_shot.json", "split.json")
"""Files of a run folder that its curve belongs to."""


def find_curve(
    report: RunReport, sources: Sources, folder: Path, progress: Progress | None = None
) -> tuple[LearningCurve | None, str]:
    """The learning curve, and a sentence that says why there is none.

    A cross-validation tests the training images themselves, so that it leaves no images to test parts of them on.

    Args:
        folder: the run folder, which keeps the curve.
    """
    kept = _read(folder / CURVE, report, sources)
    if kept is not None:
        return kept, ""
    reason = _reason(report, sources)
    if reason:
        return None, f"There is no learning curve: {reason}."
    classifier, data = sources.classifier, sources.data
    assert classifier is not None
    assert data is not None
    assert sources.drawn is not None
    assert sources.tested is not None
    from biomedcoop.features.images import encode_images

    fields = {field.name for field in dataclasses.fields(FitRequest)}
    options = {name: value for name, value in sources.request.items() if name in fields}
    known = {
        "plugins": [],
        "data": data,
        "backbone": classifier.backbone.original,
        "device": "cpu",
        "precision": "float32",
    }
    left = sources.tested >= 0
    tested, p = data.select(sources.tested[left]), report.comparison.predictions
    answers = p.runs(p.method)[0][left].argmax(axis=1)
    try:
        request = FitRequest.of({**options, **known})
        features = encode_images(classifier.backbone, tested, progress=counting(progress, "encoding test images"))
        curve = learning_curve(request, data, sources.drawn, features, tested, classifier, answers, progress)
    except NoCurve as error:
        return None, f"There is no learning curve: {error}."
    except UserError:  # a file of sentences may have moved, and an image may be gone; its message may name a folder
        return None, "There is no learning curve: an image or the file of sentences of the run cannot be read any more."
    if not left.all():  # only some of the test images are left
        return curve, ""
    content = _content(curve, sources)
    with contextlib.suppress(UserError):  # a folder that cannot be written does without
        write_atomically(folder / CURVE, json.dumps(content, indent=1).encode() + b"\n")
    return _curve(content, report), ""


def _reason(report: RunReport, sources: Sources) -> str:
    if report.trained_on is not None:
        return "an evaluation does not train"
    if report.shots is None:
        return f"{report.method} learns from no image"
    if report.comparison.predictions.folds is not None:
        return "the test is a cross-validation, which leaves no other images to test on"
    if sources.classifier is None or sources.data is None or sources.drawn is None:
        return "the model or the training images are no longer there"
    return ""


def _belongs_to(sources: Sources) -> dict[str, str | None]:
    """What a kept curve depends on."""
    return {"version": __version__, **{name: sources.hashes.get(name) for name in DECIDES}}


def _content(curve: LearningCurve, sources: Sources) -> dict[str, Any]:
    """What a run folder keeps of a curve; labels, names and groups stand in ``predictions.csv``."""
    return {
        "of": _belongs_to(sources),
        "shots": curve.shots,
        "recipe": curve.recipe,
        "ends_at_run": curve.ends_at_run,
        "right": [
            [base64.b64encode(np.packbits(one).tobytes()).decode() for one in of_size] for of_size in curve.right
        ],
    }


def _curve(content: dict[str, Any], report: RunReport) -> LearningCurve:
    p = report.comparison.predictions

    def bits(text: str) -> Any:
        packed = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
        return np.unpackbits(packed, count=len(p.labels)).astype(bool)

    right = tuple(np.stack([bits(text) for text in of_size]) for of_size in content["right"])
    shots = tuple(map(float, content["shots"]))
    return LearningCurve(
        shots, right, p.labels, p.class_names, str(content["recipe"]), p.groups, bool(content["ends_at_run"])
    )


def _read(path: Path, report: RunReport, sources: Sources) -> LearningCurve | None:
    """The kept curve of a run; None if there is none, or it belongs to another model, other images or another version."""
    try:
        content = json.loads(path.read_bytes())
        return _curve(content, report) if content["of"] == _belongs_to(sources) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
