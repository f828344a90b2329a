"""An evaluation run: test a fitted classifier on labelled images, compare it, judge it, and write what a training run writes."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from biomedcoop.classifier.classifier import Classifier
from biomedcoop.classifier.partial import content_of
from biomedcoop.data.dataset import Dataset, check_dataset
from biomedcoop.data.readers.load import read_dataset
from biomedcoop.data.readers.named import user_path
from biomedcoop.data.sampling.split import with_test_split
from biomedcoop.display import shown
from biomedcoop.errors import UserError, notify
from biomedcoop.evaluation.answers import Answers
from biomedcoop.evaluation.bootstrap import check_bootstrap
from biomedcoop.evaluation.comparison import Comparison, Predictions
from biomedcoop.evaluation.evaluate import Encoded, check_classifier, encode_for
from biomedcoop.evaluation.images import EvaluatedImages, images_to_evaluate, learned_from
from biomedcoop.methods import can_run, get_method
from biomedcoop.output import check_new_folder, new_folder, write_atomically
from biomedcoop.progress import ProgressOption, counting
from biomedcoop.report.inputs import INPUTS, EvaluationInputs
from biomedcoop.report.run import DatasetSummary, RunReport
from biomedcoop.runs import check_place, computed_on, no_text_tower_note, summarise, try_page, versions
from biomedcoop.tasks.build import task_without_images
from biomedcoop.tasks.request import absolute

CONTENTS = ("metrics.json", "report.html", "report.md", "confusion.png", "predictions.csv", INPUTS)
ZERO_SHOT = "zero-shot"


def compare(
    classifier: Classifier,
    data: Dataset | str | os.PathLike[str],
    split: str | None = None,
    *,
    split_file: str | os.PathLike[str] | None = None,
    rename: Mapping[str, str] | None = None,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    html: bool = True,
    images: bool = True,
    n_bootstrap: int = 1000,
    progress: ProgressOption = None,
) -> RunReport:
    """Evaluate a classifier beside zero-shot and the largest class, and judge it; the same as ``biomedcoop evaluate``.

    Zero-shot has the same classes and, where the classifier has one, the same template.

    Args:
        data: a dataset, or the path or name of one, see :func:`biomedcoop.load_dataset`.
        split, rename, n_bootstrap, progress: see :func:`biomedcoop.evaluate`.
        split_file: CoOp JSON with the splits of a dataset that is given by its path.
        out: folder to write: ``report.html``, ``report.md``, ``metrics.json``, ``confusion.png`` and ``predictions.csv``, as
            :func:`biomedcoop.train` writes them; and ``evaluation.json``, with the full paths of model and data.
        overwrite: replace an earlier result in ``out``.
        html: write ``report.html``.
        images: show images, their maps and their names in it.

    Raises:
        UserError, ImageError: see :func:`biomedcoop.evaluate`; or ``out`` cannot be written.

    Example:
        >>> import biomedcoop as bc
        >>> data = bc.load_dataset("simulated:breast-ultrasound?train=4&val=1&test=2")
        >>> classifier = bc.fit(data, method="tip-adapter", shots=2)
        >>> report = bc.compare(classifier, data, n_bootstrap=40)
        >>> list(report.rows), report.split
        (['tip-adapter', 'zero-shot', 'majority class'], 'test')
    """
    from biomedcoop.features.images import encode_images

    check_classifier(classifier)
    check_bootstrap(n_bootstrap)
    place = None if out is None else user_path(out)
    if place is not None:
        check_new_folder(place, overwrite, "metrics.json", CONTENTS)
    read = _dataset(classifier, data, split, split_file, place)
    evaluated = images_to_evaluate(classifier, read, split, rename)
    if read is not data:  # the notes on a loaded dataset were issued when it was loaded
        notify(read.notes)
    with shown(progress) as tell:
        encoded = encode_for(classifier, evaluated, tell)
    answers = Answers.of(classifier, encoded.features)
    probabilities = {classifier.method: answers.probabilities}
    zero_shot, notes = _zero_shot(classifier)
    if zero_shot is not None:
        features = encoded.features
        if zero_shot.backbone is not classifier.backbone:
            with shown(progress) as tell:
                features = encode_images(
                    zero_shot.backbone, evaluated.data, progress=counting(tell, "encoding test images")
                )
        probabilities[ZERO_SHOT] = zero_shot.probabilities(features)
    predictions = Predictions(
        evaluated.data.keys,
        evaluated.labels,
        classifier.class_names,
        probabilities,
        evaluated.data.groups,
        subgroups=evaluated.data.subgroups,
        unlike=encoded.unlike,
        temperatures=(answers.temperature,),
        uncalibrated=answers.uncalibrated[None],
        alpha=None if classifier.sets is None else classifier.sets.alpha,
        members=None if answers.members is None else answers.members[None],
        calibration=answers.calibration,
    )
    comparison = Comparison.of(predictions, n_bootstrap=n_bootstrap)
    name = read.name if isinstance(data, Dataset) else Path(os.path.abspath(data)).name  # noqa: PTH100 - "." has no name
    command = _command(name, split, rename or {})
    report = _report(classifier, comparison, evaluated, encoded, (*evaluated.notes, *notes), command)
    if place is not None:
        from biomedcoop.report.writing import write_report

        with new_folder(place, overwrite=overwrite, mark="metrics.json", contents=CONTENTS) as folder:
            write_report(report, folder)
            inputs = EvaluationInputs(
                None if isinstance(data, Dataset) else absolute("data", os.fspath(data)),
                None if split_file is None else absolute("split_file", os.fspath(split_file)),
                images,
                classifier.origin,
            )
            write_atomically(
                folder / INPUTS, json.dumps(inputs.to_dict(), indent=1, ensure_ascii=False).encode() + b"\n"
            )
        if html:
            with shown(progress) as tell:
                try_page(place, images=images, classifier=classifier, data=evaluated.data, progress=tell)
    return report


def _dataset(
    classifier: Classifier,
    source: Dataset | str | os.PathLike[str],
    split: str | None,
    split_file: str | os.PathLike[str] | None,
    place: Path | None,
) -> Dataset:
    """The dataset; one from a path gets the test split that a training run draws, if the user or the classifier needs it."""
    if isinstance(source, Dataset) or not isinstance(source, (str, os.PathLike)):
        if split_file is not None:
            raise UserError("split_file belongs to a path; give it to load_dataset instead")
        return check_dataset(source)
    data = read_dataset(
        os.fspath(source),
        None if split_file is None else Path(split_file),
        for_training=False,
        reading=classifier.reading,
    )
    if place is not None:
        check_place(place, data, source, split_file)
    wanted = split == "test" or (split is None and learned_from(classifier, data))
    if wanted and data.counts("train").any() and not data.counts("test").any():
        data = with_test_split(data, seed=0)
    return data


def _zero_shot(classifier: Classifier) -> tuple[Classifier | None, list[str]]:
    """Zero-shot for the same classes, with the classifier's template if it has one; else None, and a note if it is impossible."""
    if classifier.method == ZERO_SHOT:
        return None, []
    method, backbone = get_method(ZERO_SHOT), classifier.backbone.original
    if not can_run(method, backbone):
        return None, [no_text_tower_note([ZERO_SHOT], backbone)]
    own = classifier.settings.get("template")
    settings = method.settings({} if own is None else {"template": own})
    try:
        task = task_without_images(backbone, classifier.class_names)
        (state,) = method.fit(task, settings, [0])
    except UserError as error:  # a class name that is too long for the text tower
        return None, [f"There is no comparison with zero-shot: {error}."]
    return Classifier(classifier.class_names, ZERO_SHOT, state, backbone), []


def _report(
    classifier: Classifier,
    comparison: Comparison,
    evaluated: EvaluatedImages,
    encoded: Encoded,
    notes: tuple[str, ...],
    command: str,
) -> RunReport:
    facts, backbone = classifier.facts, classifier.backbone.original
    return RunReport(
        title=f"{classifier.method} on {evaluated.data.name}",
        dataset=_summary(classifier, evaluated, encoded),
        method=classifier.method,
        settings=classifier.settings,
        backbone=backbone.name,
        fingerprint=backbone.fingerprint,
        shots=facts.get("shots"),
        seed=facts.get("seed", 0),
        versions={**versions(), **computed_on(backbone)},
        comparison=comparison,
        recipe=facts.get("recipe"),
        sampling=facts.get("sampling", "equal"),
        split=evaluated.split,
        trained_on=facts.get("dataset"),
        unlike=encoded.unlike_note,
        leaks=tuple(leak.text for leak in evaluated.leaks),
        notes=tuple(dict.fromkeys([*notes, *facts.get("notes", ())])),
        command=command,
        text_tower=backbone.has_text_tower,
    )


def _summary(classifier: Classifier, evaluated: EvaluatedImages, encoded: Encoded) -> DatasetSummary:
    """The facts about the evaluated images, by the classes of the classifier."""
    counts = np.bincount(evaluated.labels, minlength=len(classifier.class_names)).tolist()
    return dataclasses.replace(
        summarise(evaluated.data),
        class_names=classifier.class_names,
        counts={evaluated.split: counts},
        image_notes=encoded.notes,
    )


def _command(name: str, split: str | None, rename: Mapping[str, str]) -> str:
    """The command that repeats the evaluation, without paths of this machine."""
    words = ["biomedcoop", "evaluate", "MODEL", "--data", name, *(["--split", split] if split else [])]
    for old, new in rename.items():
        words += ["--rename", f"{old}={new}"]
    return shlex.join([*words, "--out", "RUN"])


def write_prediction_log(
    file: Path,
    classifier: Classifier,
    counts: Mapping[str, int],
    options: Mapping[str, object],
    notes: Sequence[str],
    began: float,
) -> None:
    """Write where a table of predictions comes from, as JSON: versions, checksums, options and counts. It names no image.

    Args:
        counts: numbers of images, by what happened to them.
        options: what was asked for, JSON values.
        notes: what was said of the images.
        began: time at which the work began, seconds since the epoch.

    Raises:
        UserError: the file cannot be written.
    """
    backbone, origin = classifier.backbone, classifier.origin
    moments = {
        name: datetime.fromtimestamp(at, timezone.utc) for name, at in (("began", began), ("ended", time.time()))
    }
    content = {
        "format": "biomedcoop prediction log",
        **{name: moment.isoformat(timespec="seconds") for name, moment in moments.items()},
        "versions": {**versions(), **computed_on(backbone)},
        "model": {
            "sha256": None if origin is None else origin.sha256,
            "answers_sha256": content_of(classifier),
            "method": classifier.method,
            "classes": list(classifier.class_names),
            "backbone": backbone.name,
            "fingerprint": backbone.fingerprint,
        },
        "options": dict(options),
        "counts": dict(counts),
        "notes": list(notes),
        "disclaimer": "Not a medical device.",
    }
    write_atomically(file, json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")
