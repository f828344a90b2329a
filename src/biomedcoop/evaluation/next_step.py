"""What to do next, in one line that follows from the findings of a test."""

from __future__ import annotations

from collections.abc import Sequence

from biomedcoop.evaluation.alarms import Finding, class_units, units_of
from biomedcoop.evaluation.bootstrap import FEW
from biomedcoop.evaluation.comparison import MAJORITY, ZERO_SHOT, Comparison
from biomedcoop.evaluation.wording import listed

SAFEST = "lp++"
"""The method to compare with: first or level with the first in ``docs/results/methods.md``."""

WEAK = 0.5
"""Sensitivity of the weakest class below which more images of it come next."""

POOR = {"training changed little", "no better than chance", "below the largest class"}
"""Kinds of findings that call for another recipe or method."""


def next_step(
    comparison: Comparison,
    findings: Sequence[Finding],
    *,
    trained: bool = True,
    recipe: str | None = None,
    seeds: int = 1,
) -> str:
    """The one next step: the first rule that holds, from what makes all numbers worthless to what refines good ones.

    Args:
        comparison, trained, recipe, seeds: see :func:`biomedcoop.evaluation.verdict.judge`.
        findings: findings about the comparison.
    """
    kinds = {finding.kind for finding in findings}
    if "leak" in kinds:
        return "Take the shared images or groups out of the training or the test images, then train again."
    if "one class" in kinds:
        return "Test on images of every class."
    if "one group" in kinds:
        return "Test on images of more groups (such as patients)."
    if units_of(comparison.metrics)[0] < FEW:
        return f"Test on more images: fewer than {FEW} say little."
    if best := _better_method(comparison):
        return f"Train with '--method {best}', which is better on these images, beyond chance."
    names = [name for name in (MAJORITY, ZERO_SHOT) if name in comparison.differences]
    if any(comparison.relation(name) != "better" for name in names) or kinds & POOR:
        return _better(comparison, trained, recipe)
    classes = [c for c in comparison.metrics.classes if c.support]
    weakest = min(classes, key=lambda c: c.sensitivity.value or 0.0)
    if (weakest.sensitivity.value or 0) < WEAK:
        more = f"Give more training images of “{weakest.name}”"
        if SAFEST not in comparison.rows:
            return f"{more}, or compare with {SAFEST}: '--compare zero-shot,{SAFEST}'."
        return f"{more}, and check its sentences: 'biomedcoop prompts check --help' says how."
    if few := [f"“{c.name}”" for c in classes if class_units(c) < FEW]:
        return f"Collect more test images of {listed(few)}."
    if not trained:
        return f"Train on a few images per class: '--method {SAFEST}'."
    if seeds > 1:
        return "Test on images from another place, as 'biomedcoop evaluate' does."
    return "Train with several seeds ('--seeds 1,2,3'): other training images give other results."


def _better_method(comparison: Comparison) -> str:
    """The best trained method that is better than the reported one beyond chance, or an empty text."""
    better = [name for name in comparison.others if comparison.relation(name) == "worse" and name != ZERO_SHOT]
    return max(better, key=lambda name: comparison.value(name).value or 0.0, default="")


def _better(comparison: Comparison, trained: bool, recipe: str | None) -> str:
    """What to try after a method that is not better than the largest class or zero-shot."""
    if not trained:
        return f"Train on a few images per class ('--method {SAFEST}'), or check the sentences: 'biomedcoop prompts check --help'."
    if recipe not in (None, "general") and comparison.method != SAFEST:
        return f"Train with the default recipe ('--recipe general') and compare with {SAFEST} ('--compare zero-shot,{SAFEST}')."
    if SAFEST not in comparison.rows:
        return f"Compare with {SAFEST}, which learns most from few images: '--compare zero-shot,{SAFEST}'."
    return "Train on more images ('--shots all'), or with another backbone ('biomedcoop backbones list')."
