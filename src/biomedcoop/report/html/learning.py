"""The learning curve of a run folder, or the reason why there is none."""

from __future__ import annotations

import dataclasses

from biomedcoop.errors import UserError
from biomedcoop.evaluation.learning_curve import LearningCurve, NoCurve, learning_curve
from biomedcoop.progress import Progress, counting
from biomedcoop.report.html.sources import Sources
from biomedcoop.report.run import RunReport
from biomedcoop.tasks.request import FitRequest


def find_curve(
    report: RunReport, sources: Sources, progress: Progress | None = None
) -> tuple[LearningCurve | None, str]:
    """The learning curve, and a sentence that says why there is none.

    A cross-validation tests the training images themselves, so that it leaves no images to test parts of them on.
    """
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
    known = {"plugins": [], "data": data, "backbone": classifier.backbone, "device": "cpu", "precision": "float32"}
    tested = data.select(sources.tested[sources.tested >= 0])
    try:
        request = FitRequest.of({**options, **known})
        features = encode_images(classifier.backbone, tested, progress=counting(progress, "encoding test images"))
        return learning_curve(request, data, sources.drawn, features, tested, classifier.backbone, progress), ""
    except NoCurve as error:
        return None, f"There is no learning curve: {error}."
    except UserError:  # a file of sentences may have moved, and an image may be gone; its message may name a folder
        return None, "There is no learning curve: an image or the file of sentences of the run cannot be read any more."


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
