"""Alarms about the test results of one method: too few images, classes that are never predicted, figures that look too good.

An alarm is a sentence with the name of its kind. The verdict of a run adds the alarms that need a comparison.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from biomedcoop.evaluation.bootstrap import FEW
from biomedcoop.evaluation.metrics import ClassMetrics, Metrics
from biomedcoop.evaluation.wording import count, interval, listed, mean_count, number

FEW_PERFECT = 30
"""Number of images, or of groups, below which a perfect figure gets Wilson's interval; for 30 its lower end is 89 %."""


@dataclass(frozen=True, repr=False)
class Finding:
    """One sentence, or a few, about test results.

    Attributes:
        kind: name of the finding, e.g. "few test images".
        text: the finding in plain words.
        alarm: True if the reader must know this before using the numbers.
    """

    kind: str
    text: str
    alarm: bool = True

    def __repr__(self) -> str:
        return f"{'! ' if self.alarm else ''}{self.kind}: {self.text}"


class Verdict(tuple[Finding, ...]):
    """The findings of a verdict, the most important first; it prints as a line for each, alarms behind "!"."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "\n".join(map(repr, self))


def image_alarms(metrics: Metrics) -> Iterator[Finding]:
    """Alarms about the test images: one class or group, few images or groups, classes without images."""
    present = [c for c in metrics.classes if c.support]
    if len(present) == 1:
        yield Finding(
            "one class",
            f"All test images show “{present[0].name}”. The comparison with the largest class, AUROC and specificity need "
            "images of other classes.",
        )
    elif absent := [f"“{c.name}”" for c in metrics.classes if not c.support]:
        yield Finding(
            "class without test images",
            f"No test image shows {listed(absent)}: the means over classes leave out what is not tested.",
        )
    yield from _few(metrics)


def _few(metrics: Metrics) -> Iterator[Finding]:
    units, noun = units_of(metrics)
    kind = f"few {noun.split(' (')[0]}s"
    if metrics.n_groups == 1:
        yield Finding(
            "one group",
            "All test images come from one group (such as a patient): the numbers have no interval and say nothing about other "
            "groups.",
        )
    elif units < FEW:
        of = "" if metrics.n_groups is None else " (such as patients)"
        yield Finding(
            kind,
            f"The test has only {count(units, noun)}{of}: the 95 % intervals are rough and mostly too narrow.",
        )
    elif few := [f"“{c.name}” ({n})" for c in metrics.classes if 0 < (n := class_units(c)) < FEW]:
        yield Finding(kind, f"Classes with fewer than {FEW} {noun}s: {listed(few)}. Their numbers say little.")


def answer_alarms(metrics: Metrics) -> Iterator[Finding]:
    """Alarms about the answers: chance, classes that are never predicted, perfect figures on few images."""
    called = np.array(metrics.confusion).sum(axis=0)
    never = [
        f"“{c.name}” ({count(c.support, 'test image')})"
        for c, n in zip(metrics.classes, called, strict=True)
        if c.support and not n
    ]
    if never:
        most = int(called.argmax())
        yield Finding(
            "class never predicted",
            f"Never the answer: {listed(never)}. “{metrics.class_names[most]}” is the answer for "
            f"{mean_count(called[most], metrics.n_runs)} of {count(metrics.n_images, 'image')}.",
        )
    auroc = metrics.auroc
    if auroc.value is not None and auroc.low is not None and auroc.low <= 0.5 and units_of(metrics)[0] >= FEW:
        yield Finding(
            "no better than chance",
            f"Not better than chance: the AUROC is {number(auroc.value)} % (95 % interval {interval(auroc)} %), and guessing "
            "gives 50 %.",
        )
    # the only answer ever given finds all of its class, and that is no success
    constant = np.count_nonzero(called) == 1
    if perfect := [words for c in metrics.classes if not constant and (words := _perfect_few(c))]:
        yield Finding(
            "perfect on few images",
            f"Perfect, but on few images. Wilson's 95 % interval goes down to: {listed(perfect)}.",
        )


def tested_classes(metrics: Metrics) -> int:
    """Number of classes with test images."""
    return sum(c.support > 0 for c in metrics.classes)


def found_less(metrics: Metrics, share: float = 1.0) -> list[ClassMetrics]:
    """Classes found less often than the share of what random answers over all classes find, the weakest first."""
    if tested_classes(metrics) < 2:
        return []
    c = len(metrics.classes)
    weak = [
        (found, one) for one in metrics.classes if (found := one.sensitivity.value) is not None and found < share / c
    ]
    return [one for _, one in sorted(weak, key=lambda pair: pair[0])]


def units_of(metrics: Metrics) -> tuple[int, str]:
    """Number and name of what the intervals resample: images or groups."""
    return (metrics.n_images, "test image") if metrics.n_groups is None else (metrics.n_groups, "test group")


def class_units(c: ClassMetrics) -> int:
    """Number of test images of a class, or of groups where they are known."""
    return c.support if c.n_groups is None else c.n_groups


def _perfect_few(c: ClassMetrics) -> str:
    """The class with its Wilson interval if all of its few test images are right, else an empty text."""
    units, low = class_units(c), c.sensitivity.low
    if c.sensitivity.value != 1 or units >= FEW_PERFECT or low is None:
        return ""
    groups = "" if c.n_groups is None else f" from {count(units, 'group')}"
    return f"{100 * low:.0f} % for “{c.name}” ({c.support} of {c.support}{groups})"
