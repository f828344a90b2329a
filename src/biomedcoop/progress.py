"""Progress reports of long work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

Progress = Callable[[str, int, int], None]
"""Callback with (stage of the work, units done, units in total); a total of 0 means that it is not known."""

ProgressOption = Progress | Literal[False] | None
"""The argument ``progress`` of a public function: None shows long work on stderr, False shows nothing, a callback is called."""


_bars = True


def show_bars(shown: bool) -> None:
    """Say whether other libraries may show progress bars of their own on stderr; by default they may."""
    global _bars
    _bars = shown


def bars_shown() -> bool:
    """Whether other libraries may show progress bars."""
    return _bars


def counting(progress: Progress | None, stage: str) -> Callable[[int, int], None] | None:
    """A callback with (units done, units in total) that reports to ``progress`` under the name ``stage``."""
    return None if progress is None else lambda done, total: progress(stage, done, total)
