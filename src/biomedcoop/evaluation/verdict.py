"""The verdict on a tested method in plain sentences, the most important first.

Comparisons are paired: both methods answer the same images, which are resampled together, by groups where these are known.
"Beyond chance" means that the 95 % interval of the difference excludes zero, on ten or more images or groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np

from biomedcoop.evaluation.alarms import Finding, answer_alarms, hardly_found, image_alarms, tested_classes, units_of
from biomedcoop.evaluation.bootstrap import FEW
from biomedcoop.evaluation.comparison import MAJORITY, ZERO_SHOT, Comparison
from biomedcoop.evaluation.grades import grade_notes
from biomedcoop.evaluation.headline import headline
from biomedcoop.evaluation.metrics import CALIBRATION_BINS
from biomedcoop.evaluation.next_step import UNLIKE, next_step
from biomedcoop.evaluation.wording import count, interval, number

Fact = partial(Finding, alarm=False)

EXPLAINED = {ZERO_SHOT: "Zero-shot, the backbone without training,"}
LITTLE = 0.1
"""Answers that training changed, as a share of zero-shot's errors, below which training changed little."""

MANY_UNLIKE = 0.1
"""Share of test images unlike the training images above which there is an alarm: more than the false alarms of any dataset in
``docs/results/unlike.md``."""

BADLY_CALIBRATED = 0.1
"""Calibration error, beyond what as many images of calibrated probabilities would show, above which there is an alarm."""


def judge(
    comparison: Comparison,
    *,
    shots: int | str | None = None,
    recipe: str | None = None,
    seeds: int = 1,
    leaks: Iterable[str] = (),
    unlike: str = "",
    elsewhere: bool = False,
) -> tuple[Finding, ...]:
    """Judge the reported method of a comparison.

    Args:
        comparison: the reported method, the methods for comparison and the majority class on the same test images.
        shots: training images per class, "all", or None for a method that needs none.
        recipe: recipe of the reported method, or None if it is unknown.
        seeds: number of seeds, or of divisions in a cross-validation, that were trained.
        leaks: overlaps of test and training images, a sentence each.
        unlike: a sentence on the test images unlike the training images, or an empty text.
        elsewhere: True if the test images are of another dataset than the training images.

    Returns:
        The findings: leaks, "headline", then the score, comparisons, the weakest class and the alarms; "next" is last.

    Example:
        >>> import numpy as np
        >>> from biomedcoop.evaluation.comparison import Predictions
        >>> answers = np.eye(2)[[0] * 30 + [1] * 10], np.eye(2)[[0, 1] * 20]
        >>> truth = np.array([0] * 20 + [1] * 20)
        >>> tested = Comparison.of(Predictions(("",) * 40, truth, ("cyst", "stone"), dict(zip(("coop", "zero-shot"), answers))))
        >>> findings = judge(tested, shots=16, recipe="general")
        >>> findings[0].text
        'coop is better than always answering the largest class and than zero-shot (no training), beyond chance.'
        >>> next(finding.text for finding in findings if finding.kind == "weakest class")
        'Weakest class: 10 of 20 images of “stone” are missed, all of them taken for “cyst”.'
    """
    findings = [
        *(Finding("leak", f"The test images are not independent. {leak}") for leak in leaks),
        Fact("headline", headline(comparison)),
        _score(comparison),
        *_largest_class(comparison),
        *_others(comparison, shots is not None),
        *_weakest(comparison),
        *answer_alarms(comparison.metrics),
        *image_alarms(comparison.metrics),
        *(Finding("subgroup", text) for text in (comparison.subgroups.alarms() if comparison.subgroups else ())),
        *_unlike(comparison, unlike),
        *_calibration(comparison),
        *(Fact("grades", text) for text in grade_notes(comparison.metrics.grades)),
    ]
    step = next_step(comparison, findings, shots=shots, recipe=recipe, seeds=seeds, elsewhere=elsewhere)
    return (*findings, Fact("next", step))


def _unlike(tested: Comparison, sentence: str) -> Iterator[Finding]:
    """An alarm if more images are unlike the training images than false alarms explain."""
    if tested.predictions.unlike is not None and tested.predictions.unlike.mean() > MANY_UNLIKE:
        yield Finding(UNLIKE, f"{sentence}.")


def _score(tested: Comparison) -> Finding:
    value, n = tested.value(tested.method), count(tested.metrics.n_images, "test image")
    range_ = f" (95 % interval {interval(value)} %)" if interval(value) else " (without an interval)"
    if tested.measure == "accuracy":
        return Fact("score", f"It is right for {number(value.value or 0)} % of {n}{range_}.")
    by_size = sorted((c for c in tested.metrics.classes if c.support), key=lambda c: c.support)
    return Fact(
        "score",
        f"Its balanced accuracy, in which every class counts the same, is {number(value.value or 0)} %{range_} on {n}. It comes "
        f"first, because “{by_size[-1].name}” has {tested.unevenness:.1f} times the images of “{by_size[0].name}”.",
    )


def _against(tested: Comparison, row: str) -> str:
    """Value of another row and the paired difference; several methods have a table of differences instead."""
    value = f"{number(tested.value(row).value or 0)} %"
    d = tested.difference(row)
    if len(tested.others) > 1 or d.value is None:
        return value
    difference = f"{value}, a difference of {number(d.value, signed=True)} points"
    if not interval(d):
        return f"{difference} (without an interval)"
    chance = ""
    if tested.relation(row) == "unclear":
        units, noun = units_of(tested.metrics)
        chance = f", but {count(units, noun)} are too few to tell" if units < FEW else ", which may be chance"
    return f"{difference} ({interval(d, signed=True)}){chance}"


def _largest_class(tested: Comparison) -> Iterator[Finding]:
    if tested_classes(tested.metrics) == 1:
        return
    largest = max(tested.metrics.classes, key=lambda c: c.support).name
    balanced = tested.measure == "balanced_accuracy"
    start = "In balanced accuracy, always" if balanced else "Always"
    text = f"{start} answering “{largest}”, the largest class, reaches {_against(tested, MAJORITY)}."
    if (tested.difference(MAJORITY).value or 0) < 0:
        yield Finding("below the largest class", text)
        return
    yield Fact("largest class", text)
    if (tested.differences[MAJORITY].accuracy.value or 0) < 0:
        own, constant = (number(tested.rows[row].accuracy.value or 0) for row in (tested.method, MAJORITY))
        yield Finding(
            "below the largest class",
            f"In plain accuracy it is below the largest class: it is right for {own} % of the images, always answering "
            f"“{largest}” for {constant} %.",
        )


def _others(tested: Comparison, trained: bool) -> Iterator[Finding]:
    for row in tested.others:
        changed, n = tested.differences[row].changed, tested.metrics.n_images
        errors = round(n * (1 - (tested.rows[row].accuracy.value or 0)))
        if row == ZERO_SHOT and trained and errors and changed <= LITTLE * errors:
            yield Finding(
                "training changed little",
                f"Training changed {changed} of the {n} answers that the backbone gives without training (zero-shot), though "
                f"{errors} of them {'is' if errors == 1 else 'are'} wrong.",
            )
        elif tested.relation(row) == "worse":
            better = f"{EXPLAINED.get(row, row)} is better, beyond chance: it reaches {_against(tested, row)}."
            yield Finding(f"below {row}", better)
        elif len(tested.others) == 1:
            yield Fact(row, f"{EXPLAINED.get(row, row)} reaches {_against(tested, row)}.")


def _weakest(tested: Comparison) -> Iterator[Finding]:
    """The class of which the fewest images are found; none if classes that are never predicted are an alarm of their own."""
    classes, confusion = tested.metrics.classes, np.array(tested.metrics.confusion)
    weakest = min((k for k, c in enumerate(classes) if c.support), key=lambda k: classes[k].sensitivity.value or 0.0)
    row, name = confusion[weakest], classes[weakest].name
    missed = int(row.sum() - row[weakest])
    if not missed:
        yield Fact("weakest class", "No test image was misclassified.")
    elif confusion[:, weakest].any():
        taken = int(np.where(np.arange(len(row)) == weakest, -1, row).argmax())
        many = "all" if row[taken] == missed else str(row[taken])
        how = (
            f"taken for “{classes[taken].name}”" if missed == 1 else f"{many} of them taken for “{classes[taken].name}”"
        )
        text = (
            f"{missed} of {count(int(row.sum()), 'image')} of “{name}” {'is' if missed == 1 else 'are'} missed, {how}."
        )
        if name in hardly_found(tested.metrics):
            yield Finding(
                "class hardly found",
                f"{text} Random answers would find {number(1 / tested_classes(tested.metrics))} %.",
            )
        else:
            yield Fact("weakest class", f"Weakest class: {text}")


def _calibration(tested: Comparison) -> Iterator[Finding]:
    if units_of(tested.metrics)[0] < FEW:
        return
    p = np.asarray(tested.predictions.probabilities[tested.method], dtype=np.float64)
    top, error = p.max(axis=1), tested.metrics.calibration_error.value or 0
    bins = np.clip(np.ceil(top * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
    spread = np.sqrt(np.bincount(bins, weights=top * (1 - top), minlength=CALIBRATION_BINS))
    # calibrated probabilities also show an error on few images: the mean absolute value of each bin's normal deviation
    by_chance = float(np.sqrt(2 / np.pi) * spread.sum() / len(p))
    if error - by_chance > BADLY_CALIBRATED:
        yield Finding(
            "badly calibrated",
            f"Do not read the probabilities as confidence: the answers claim {number(float(top.mean()))} % on average, and "
            f"{number(tested.metrics.accuracy.value or 0)} % of them are right (calibration error {number(error)} points).",
        )
