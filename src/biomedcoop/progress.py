"""Progress reports of long work."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Callback with (stage of the work, units done, units in total)."""


def counting(progress: Progress | None, stage: str) -> Callable[[int, int], None] | None:
    """A callback with (units done, units in total) that reports to ``progress`` under the name ``stage``."""
    return None if progress is None else lambda done, total: progress(stage, done, total)
