"""What to do next, in one line that follows from the findings of a test."""

from __future__ import annotations

from collections.abc import Sequence

from biomedcoop.evaluation.alarms import Finding, class_units, units_of
from biomedcoop.evaluation.bootstrap import FEW
from biomedcoop.evaluation.comparison import MAJORITY, ZERO_SHOT, Comparison
from biomedcoop.evaluation.wording import listed
from biomedcoop.methods import get_method
from biomedcoop.methods.recommended import recommended

WEAK = 0.5
"""Sensitivity of the weakest class below which more images of it come next."""

UNLIKE = "images unlike the training images"
"""Kind of the alarm that the test images come from elsewhere."""

POOR = {"training changed little", "no better than chance", "below the largest class"}
"""Kinds of findings that call for another recipe or method."""

UNEVENLY_FOUND = {"class never predicted", "found less than by chance", "below the largest class"}
"""Kinds of findings that uneven numbers of training images can cause."""


def next_step(
    comparison: Comparison,
    findings: Sequence[Finding],
    *,
    shots: int | str | None = None,
    recipe: str | None = None,
    unused: int = 0,
    elsewhere: bool = False,
    text_tower: bool = True,
) -> str:
    """The one next step: the first rule that holds, from what makes all numbers worthless to what refines good ones.

    Args:
        comparison, shots, recipe, unused, elsewhere, text_tower: see :func:`biomedcoop.evaluation.verdict.judge`.
        findings: findings about the comparison.
    """
    trained, best_known = shots is not None, _recommended(comparison, shots, text_tower)
    kinds = {finding.kind for finding in findings}
    if "leak" in kinds:
        return "Take the shared images or groups out of the training or the test images, then train again."
    if "one class" in kinds:
        return "Test on images of every class."
    if "one group" in kinds:
        return "Test on images of more groups (such as patients)."
    if units_of(comparison.metrics)[0] < FEW:
        more = "more images" if comparison.metrics.n_groups is None else "images of more groups (such as patients)"
        return f"Test on {more}: fewer than {FEW} say little."
    if best := _better_method(comparison):
        return f"Train with '--method {best}', which is better on these images, beyond chance."
    names = [name for name in (MAJORITY, ZERO_SHOT) if name in comparison.differences]
    if any(comparison.relation(name) != "better" for name in names) or kinds & POOR:
        if trained and (elsewhere or UNLIKE in kinds):
            return "Train again with images of this source among the training images."
        if shots == "all" and kinds & UNEVENLY_FOUND:
            return "Train with equally many images of each class, without '--shots all': it favours the large classes."
        return _better(comparison, best_known, trained, recipe, unused)
    classes = [c for c in comparison.metrics.classes if c.support]
    weakest = min(classes, key=lambda c: c.sensitivity.value or 0.0)
    if (weakest.sensitivity.value or 0) < WEAK:
        more = _use_all(unused) if unused else f"Give more training images of “{weakest.name}”"
        if best_known not in comparison.rows:
            return f"{more}, or train with {_compare(comparison, best_known)}."
        if not get_method(comparison.method).abilities.uses_sentences:
            return f"{more}."
        return f"{more}, and check its sentences: 'biomedcoop prompts check --help' says how."
    if few := [f"“{c.name}”" for c in classes if class_units(c) < FEW]:
        # a cross-validation has no test split
        images = "test images" if comparison.predictions.folds is None else "images"
        return f"Collect more {images} of {listed(few)}."
    if not trained:
        return f"Train on a few images per class: '--method {best_known}'."
    if unused:
        return f"{_use_all(unused)}."
    if comparison.metrics.n_runs > 1:
        return "Test on images from another place, as 'biomedcoop evaluate' does."
    return "Train with several seeds ('--seeds 1,2,3'): other training images give other results."


def _better_method(comparison: Comparison) -> str:
    """The best trained method that is better than the reported one beyond chance, or an empty text."""
    better = [name for name in comparison.others if comparison.relation(name) == "worse" and name != ZERO_SHOT]
    return max(better, key=lambda name: comparison.value(name).value or 0.0, default="")


def _compare(comparison: Comparison, best_known: str) -> str:
    """The option that compares with one more method."""
    first = [ZERO_SHOT] * get_method(best_known).abilities.needs_text_tower
    return f"'--compare {','.join(dict.fromkeys([*first, *comparison.others, best_known]))}'"


def _use_all(unused: int) -> str:
    return f"Train on the {unused} training images that are left, too ('--shots all')"


def _better(comparison: Comparison, best_known: str, trained: bool, recipe: str | None, unused: int) -> str:
    """What to try after a method that is not better than the largest class or zero-shot."""
    compare = _compare(comparison, best_known)
    if trained and best_known == ZERO_SHOT and comparison.relation(ZERO_SHOT) != "better":
        return (
            "Take zero-shot ('--method zero-shot'), or train on more images: the backbone knows the classes, and few images add "
            "little."
        )
    if not trained:
        return (
            f"Train on a few images per class ('--method {best_known}'), or check the sentences: "
            "'biomedcoop prompts check --help'."
        )
    if recipe not in (None, "general") and comparison.method != best_known:
        return f"Train with the default recipe and compare with {best_known} ('--recipe general {compare[1:]})."
    if best_known not in comparison.rows:
        knows = "knows" if _knows(comparison) else "does not know"
        return f"Train with {compare}: {best_known} is recommended where the backbone {knows} the classes."
    more = _use_all(unused) if unused else "Train on more images"
    return f"{more}, or with another backbone ('biomedcoop backbones list')."


def _knows(comparison: Comparison) -> bool:
    """Whether the backbone knows the classes: zero-shot is better than the largest class, beyond chance."""
    if ZERO_SHOT not in comparison.rows:
        return False
    low, largest = comparison.value(ZERO_SHOT).low, comparison.value(MAJORITY).value
    return low is not None and largest is not None and low > largest


def _recommended(comparison: Comparison, shots: int | str | None, text_tower: bool) -> str:
    """The recommended method for as many images per class, by whether the backbone knows the classes.

    Without a text tower it is the most accurate of the measured methods that need none.
    """
    measured = recommended()["known" if _knows(comparison) else "unknown"]
    numbers = sorted(map(int, measured["recommended"]))
    # with None nothing is trained yet: as with many images
    at_most = [number for number in numbers if not isinstance(shots, int) or number <= shots]
    number = str(max(at_most, default=numbers[0]))
    if text_tower:
        return str(measured["recommended"][number])
    accuracy: dict[str, float] = measured["accuracy"][number]
    return max((name for name in accuracy if not get_method(name).abilities.needs_text_tower), key=accuracy.__getitem__)
