"""The headline of a verdict: better or not than always answering the largest class and than zero-shot, beyond chance or not."""

from __future__ import annotations

from biomedcoop.evaluation.alarms import found_less, tested_classes
from biomedcoop.evaluation.comparison import MAJORITY, ZERO_SHOT, Comparison, Relation

SLIGHT = 0.05
"""Difference below which a method is only slightly better or worse."""

HARDLY = 0.5
"""Share of what random answers find below which a class is hardly found."""

MOST_CLASSES = 2
"""Number of classes that a headline names; it counts more."""

RELATIONS: dict[Relation, str] = {
    "better": "better than {}, beyond chance",
    "worse": "worse than {}, beyond chance",
    "unclear": "not better than {} beyond chance",
    "same": "no better than {}",
    "unknown": "not comparable with {}: there is no interval",
}

LOWER = "worse than {}, though not beyond chance"
"""In place of "unclear", for a value that is lower."""


def headline(tested: Comparison) -> str:
    """One to three short sentences: plain accuracy if it is below the largest class, the comparisons, classes hardly found."""
    sentences = []
    subject, uneven = tested.method, tested.measure == "balanced_accuracy"
    plain = tested.differences[MAJORITY].accuracy
    if uneven and plain.high is not None and plain.high < 0:
        sentences.append(f"{subject} is right less often than {constant(tested)}.")
        subject = "it"
    if compared := _compared(tested):
        sentences.append(f"{'In balanced accuracy, ' if uneven else ''}{subject} is {compared}.")
    else:
        sentences.append(f"{subject} has nothing to be compared with on these images.")
    if hardly := found_less(tested.metrics, HARDLY):
        many = len(hardly) > MOST_CLASSES
        classes = f"{len(hardly)} of {tested_classes(tested.metrics)} classes"
        named = " and ".join(f"“{c.name}”" for c in hardly)
        sentences.append(f"It hardly finds {classes if many else named}.")
    return " ".join(sentences)


def constant(tested: Comparison) -> str:
    """The row :data:`MAJORITY` in words: no class is the largest if all have equally many test images."""
    return f"always answering the {'same' if tested.unevenness == 1 else 'largest'} class"


def _compared(tested: Comparison) -> str:
    """The relation to the largest class and to zero-shot; one phrase if they are equal, an empty text if there are none."""
    names = {MAJORITY: constant(tested), ZERO_SHOT: "zero-shot (no training)"}
    phrases: dict[str, list[str]] = {}
    for row, words in names.items():
        if row in tested.differences and not (row == MAJORITY and tested_classes(tested.metrics) == 1):
            relation, difference = tested.relation(row), tested.difference(row).value or 0
            slightly = "slightly " if relation in ("better", "worse") and abs(difference) < SLIGHT else ""
            phrase = LOWER if relation == "unclear" and difference < 0 else slightly + RELATIONS[relation]
            phrases.setdefault(phrase, []).append(words)
    parts = []
    for words, rows in phrases.items():
        before = "with" if "with {}" in words else "than"
        parts.append(words.format(f" {'or' if words.startswith('n') else 'and'} {before} ".join(rows)))
    good = {part.startswith(("better", "slightly better")) for part in parts}
    return (", but " if len(good) > 1 else ", and ").join(parts)
