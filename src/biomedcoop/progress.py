"""How long work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, units done, units in all)."""


def counting(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    """``progress`` for one kind of work, called with (done, in all)."""
    return None if progress is None else lambda done, total: progress(what, done, total)
