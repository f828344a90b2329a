"""Numbers, names and lists as text, for tables and sentences."""

from __future__ import annotations

from collections.abc import Sequence

from biomedcoop.evaluation.bootstrap import Estimate

MOST_NAMED = 5
"""Number of names that a sentence lists; it counts the others."""


def number(share: float, signed: bool = False) -> str:
    """Percent with one decimal and a true minus sign."""
    stored = round(share, 6)  # as in metrics.json, so that a report read from there says the same
    rounded = round(100 * stored, 1) + 0.0  # no minus sign before a zero
    return f"{rounded:{'+' if signed else ''}.1f}".replace("-", "−")


def percent(estimate: Estimate | None, signed: bool = False) -> str:
    """An estimate as text: ``71.2 (64.1–77.5)``, or signed ``+7.1 (−0.4 to +8.0)``; a dash for an undefined value or interval."""
    if estimate is None or estimate.value is None:
        return "–"
    return f"{number(estimate.value, signed)} ({interval(estimate, signed) or '–'})"


def interval(estimate: Estimate, signed: bool = False) -> str:
    """The interval as text, ``64.1–77.5`` or signed ``−0.4 to +8.0``; empty if there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{number(estimate.low, signed)}{' to ' if signed else '–'}{number(estimate.high, signed)}"


def count(n: int, noun: str) -> str:
    """``1 image`` or ``2 images``."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def mean_count(total: float, runs: int) -> str:
    """The mean number of images over the runs: ``9``, or ``9.3`` where it is not whole."""
    return f"{total / runs:.1f}".removesuffix(".0")


def listed(items: Sequence[str]) -> str:
    """The first :data:`MOST_NAMED` items, and the number of the others."""
    rest = len(items) - MOST_NAMED
    return ", ".join(items[:MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
