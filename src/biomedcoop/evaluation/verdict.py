"""The verdict on a tested method in plain sentences, the most important first.

Comparisons are paired: both methods answer the same images, which are resampled together, by groups where these are known.
"Beyond chance" means that the 95 % interval of the difference excludes zero, on ten or more images or groups.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np
import numpy.typing as npt

from biomedcoop.evaluation.alarms import (
    Finding,
    Verdict,
    answer_alarms,
    found_less,
    image_alarms,
    tested_classes,
    units_of,
)
from biomedcoop.evaluation.bootstrap import FEW
from biomedcoop.evaluation.comparison import MAJORITY, ZERO_SHOT, Comparison
from biomedcoop.evaluation.grades import grade_notes
from biomedcoop.evaluation.headline import headline
from biomedcoop.evaluation.intervals import wilson
from biomedcoop.evaluation.metrics import CALIBRATION_BINS
from biomedcoop.evaluation.next_step import UNLIKE, next_step
from biomedcoop.evaluation.wording import count, interval, listed, mean_count, number
from biomedcoop.tasks.options import images_needed

Fact = partial(Finding, alarm=False)

EXPLAINED = {ZERO_SHOT: "Zero-shot, the backbone without training,"}
LITTLE = 0.1
"""Answers that training changed, as a share of zero-shot's errors, below which training changed little."""

MOST_FALSE_ALARMS = 0.1
"""No dataset in ``docs/results/unlike.md`` has a larger share of test images that are flagged as unlike the training images though
they are of the same source (9.5 % at worst)."""

MOSTLY_WHOLE = 0.75
"""Share of prediction sets of all classes from which on the sets are of no use."""

BADLY_CALIBRATED = 0.1
"""Calibration error, beyond what as many images of calibrated probabilities would show, above which there is an alarm."""


def judge(
    comparison: Comparison,
    *,
    shots: int | str | None = None,
    recipe: str | None = None,
    unused: int = 0,
    leaks: Iterable[str] = (),
    unlike: str = "",
    elsewhere: bool = False,
    text_tower: bool = True,
    may_calibrate: bool = False,
) -> Verdict:
    """Judge the reported method of a comparison.

    Args:
        comparison: the reported method, the methods for comparison and the majority class on the same test images.
        shots: training images per class, "all", or None for a method that needs none.
        recipe: recipe of the reported method, or None if it is unknown.
        unused: number of training images that '--shots all' would add.
        leaks: overlaps of test and training images, a sentence each.
        unlike: a sentence on the test images unlike the training images, or an empty text.
        elsewhere: True if the test images are of another dataset than the training images.
        may_calibrate: True if '--calibrate yes' would fit a temperature where none was fitted.
        text_tower: False if the backbone has no text tower, so that methods which encode texts cannot be a next step.

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
        'coop is better than always answering the same class and than zero-shot (no training), beyond chance.'
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
        *_calibration(comparison, may_calibrate),
        *_sets(comparison),
        *(Fact("grades", text) for text in grade_notes(comparison.metrics.grades)),
    ]
    step = next_step(
        comparison,
        findings,
        shots=shots,
        recipe=recipe,
        unused=unused,
        elsewhere=elsewhere,
        text_tower=text_tower,
    )
    return Verdict([*findings, Fact("next", step)])


def _unlike(tested: Comparison, sentence: str) -> Iterator[Finding]:
    """An alarm if more images are unlike the training images than false alarms explain, whatever images chance has drawn."""
    unlike = tested.predictions.unlike
    if unlike is None:
        return
    # images of a group are flagged together, so a group counts as one image
    share = wilson(float(unlike.mean()), tested.metrics.n_groups or len(unlike))
    if share.low is not None and share.low > MOST_FALSE_ALARMS:
        yield Finding(UNLIKE, f"{sentence}.")


def _score(tested: Comparison) -> Finding:
    value, n = tested.value(tested.method), count(tested.metrics.n_images, "test image")
    range_ = f" (95 % interval {interval(value)} %)" if interval(value) else " (without an interval)"
    runs = _runs(tested)
    if tested.measure == "accuracy":
        return Fact("score", f"It is right for {number(value.value or 0)} % of {n}{range_}{runs}.")
    by_size = sorted((c for c in tested.metrics.classes if c.support), key=lambda c: c.support)
    return Fact(
        "score",
        f"Its balanced accuracy, in which every class counts the same, is {number(value.value or 0)} %{range_} on "
        f"{n}{runs}. It comes "
        f"first, because “{by_size[-1].name}” has {tested.unevenness:.1f} times the images of “{by_size[0].name}”.",
    )


def _runs(tested: Comparison) -> str:
    """What the numbers are means of, with the lowest and the highest, if there are several runs."""
    found = tested.by_run.get(tested.method)
    if not found:
        return ""
    values = [run[tested.measure] or 0.0 for run in found]
    return f", the mean of {tested.runs} ({number(min(values))} to {number(max(values))} %)"


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
    which = "the same class" if tested.unevenness == 1 else f"“{largest}”, the largest class,"
    always = f"{'In balanced accuracy, always' if balanced else 'Always'} answering {which}"
    below = (tested.difference(MAJORITY).value or 0) < 0
    kind = partial(Finding, "below the largest class") if below else partial(Fact, "largest class")
    yield kind(text=f"{always} reaches {_against(tested, MAJORITY)}.")
    plain = tested.differences[MAJORITY].accuracy
    if balanced and not below and (plain.low is None or plain.low <= 0):
        own, other = (number(tested.rows[row].accuracy.value or 0) for row in (tested.method, MAJORITY))
        worse = (plain.value or 0) < 0
        kind = partial(Finding, "below the largest class") if worse else partial(Fact, "plain accuracy")
        relation = "below the largest class" if worse else "not better than the largest class beyond chance"
        yield kind(
            text=f"In plain accuracy it is {relation}: it is right for {own} % of the images, always answering “{largest}” for "
            f"{other} %."
        )


def _others(tested: Comparison, trained: bool) -> Iterator[Finding]:
    for row in tested.others:
        changed, n = tested.differences[row].changed, tested.metrics.n_images
        errors = round(n * (1 - (tested.rows[row].accuracy.value or 0)))
        if row == ZERO_SHOT and trained and errors and changed <= LITTLE * errors:
            yield Finding(
                "training changed little",
                f"Training changed {mean_count(changed, 1)} of the {n} answers that the backbone gives without training "
                f"(zero-shot), though {errors} of them {'is' if errors == 1 else 'are'} wrong.",
            )
        elif tested.relation(row) == "worse":
            better = f"{EXPLAINED.get(row, row)} is better, beyond chance: it reaches {_against(tested, row)}."
            yield Finding(f"below {row}", better)
        elif len(tested.others) == 1:
            yield Fact(row, f"{EXPLAINED.get(row, row)} reaches {_against(tested, row)}.")


def _weakest(tested: Comparison) -> Iterator[Finding]:
    """The class of which the fewest images are found; classes that are never predicted are an alarm of their own."""
    classes, runs = tested.metrics.classes, tested.metrics.n_runs
    confusion = np.array(tested.metrics.confusion)
    answered = [k for k, c in enumerate(classes) if c.support and confusion[:, k].any()]
    if not answered:
        return
    weakest = min(answered, key=lambda k: classes[k].sensitivity.value or 0.0)
    row, name = confusion[weakest], classes[weakest].name
    missed = int(row.sum() - row[weakest])
    if not missed and len(answered) == tested_classes(tested.metrics):
        yield Fact("weakest class", "No test image was misclassified.")
    elif missed:
        taken = int(np.where(np.arange(len(row)) == weakest, -1, row).argmax())
        many = "all" if row[taken] == missed else mean_count(row[taken], runs)
        how = (
            f"taken for “{classes[taken].name}”"
            if missed == runs
            else f"{many} of them taken for “{classes[taken].name}”"
        )
        text = (
            f"{mean_count(missed, runs)} of {count(classes[weakest].support, 'image')} of “{name}” "
            f"{'is' if missed == runs else 'are'} missed{'' if runs == 1 else ' on average'}, {how}."
        )
        if less := found_less(tested.metrics):
            others = [c for c in less if c.name != name and c.sensitivity.value]  # those without are never predicted
            also = listed([f"“{c.name}” ({number(c.sensitivity.value or 0)} %)" for c in others])
            yield Finding(
                "found less than by chance",
                f"{text} Random answers would find {number(1 / len(classes))} %{f'; below that is also {also}' if also else ''}.",
            )
        else:
            yield Fact("weakest class", f"Weakest class: {text}")


def _calibration(tested: Comparison, may_calibrate: bool) -> Iterator[Finding]:
    if units_of(tested.metrics)[0] < FEW:
        return
    top, error = tested.predictions.runs(tested.method).max(axis=2), tested.metrics.calibration_error.value or 0
    by_chance = float(np.mean([_by_chance(of_run.astype(np.float64)) for of_run in top]))
    if error - by_chance > BADLY_CALIBRATED:
        yield Finding(
            "badly calibrated",
            f"Do not read the probabilities as confidence: the answers claim {number(float(top.mean()))} % on average, and "
            f"{number(tested.metrics.accuracy.value or 0)} % of them are right (calibration error {number(error)} points)"
            + (
                "; '--calibrate yes' may mend it."
                if may_calibrate and set(tested.predictions.temperatures) <= {1}
                else "."
            ),
        )


def _sets(tested: Comparison) -> Iterator[Finding]:
    """An alarm if most prediction sets are all classes: why, and what would mend it."""
    found, error = tested.coverage, 1 - (tested.metrics.accuracy.value or 0)
    if found is None or (found.whole.value or 0) < MOSTLY_WHOLE:
        return
    needed = images_needed(found.alpha)
    if found.calibration is not None and found.calibration < needed:
        are = f"there are {found.calibration}" if found.calibration else "none was set aside (half of a class at most)"
        why = (
            f"Alpha {found.alpha:g} needs {needed} calibration images (with --by-class, of each class), and {are}. Give more "
            "images, or a larger alpha"
        )
        why += f" (0.2 needs {images_needed(0.2)})." if found.alpha < 0.2 else "."
    else:
        why = (
            f"Of the answers {number(error)} % are wrong, but at most {number(found.alpha)} % of the sets may miss the true class, "
            "so smaller ones would break the promise. "
        )
        n = found.calibration
        if n is not None and math.ceil((n + 1) * (1 - found.alpha)) == n:
            why += f"The largest score of the {n} calibration images is the limit, and more images lower it. "
        why += "Give more training images or a better method"
        # as many misses as there are errors leave sets of about one class
        larger = math.ceil(10 * error) / 10
        why += f", or allow more misses ('--alpha {larger:g}')." if found.alpha < larger <= 0.5 else "."
    yield Finding(
        "sets of all classes",
        f"The prediction sets are of no use here: {number(found.whole.value or 0)} % of them hold all {len(found.classes)} "
        f"classes. {why}",
    )


def _by_chance(top: npt.NDArray[np.float64]) -> float:
    """Calibration error of as many images whose answers are right as often as their probability says, [N]."""
    bins = np.clip(np.ceil(top * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
    spread = np.sqrt(np.bincount(bins, weights=top * (1 - top), minlength=CALIBRATION_BINS))
    return float(np.sqrt(2 / np.pi) * spread.sum() / len(top))  # each bin's mean absolute normal deviation
