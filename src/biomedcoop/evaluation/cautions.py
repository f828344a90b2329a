"""Cautions about test results: few groups, and classes without test images."""

from __future__ import annotations

from collections.abc import Iterator

from biomedcoop.evaluation.metrics import Metrics

FEW_GROUPS = 10
"""Number of groups below which percentile intervals are too narrow to be trusted."""


def group_cautions(metrics: Metrics) -> Iterator[str]:
    """Cautions about few groups, one for all test images and one for single classes."""
    if metrics.n_groups is None:
        return
    if metrics.n_groups == 1:
        yield (
            "All test images come from one group (such as a patient): the numbers have no interval and say nothing about "
            "other groups."
        )
        return
    if metrics.n_groups < FEW_GROUPS:
        yield (
            f"The test images come from only {metrics.n_groups} groups (such as patients): the 95 % intervals are rough and "
            "mostly too narrow."
        )
    few = [f"{c.name} ({c.n_groups})" for c in metrics.classes if c.n_groups and c.n_groups < FEW_GROUPS]
    if few:
        yield f"Classes whose test images come from few groups: {', '.join(few)}. Their numbers say little."


def class_cautions(metrics: Metrics) -> Iterator[str]:
    """A caution about classes without a test image."""
    if absent := [c.name for c in metrics.classes if not c.support]:
        yield (
            f"No test image shows {', '.join(absent)}: these classes have no sensitivity and no AUROC, and the means over "
            "classes leave them out."
        )
