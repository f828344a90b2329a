"""A cell of a study: one dataset under one condition, all seeds together."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path

Answers = list[list[int]]
"""Which scored images are answered rightly, 0 or 1, [seeds][images]."""

Compute = Callable[[str, Hashable, str], Answers]
"""(dataset, key, backbone) -> answers. A function of a module, since other processes call it."""


@dataclass(frozen=True)
class Cell:
    """One dataset under one condition.

    Attributes:
        dataset: its name.
        key: the condition, as ``compute`` takes it.
        name: of the file that keeps the answers, without ending.
        cost: relative; the dearest cells are computed first.
    """

    dataset: str
    key: Hashable
    name: str
    cost: float = 0.0

    def file(self, folder: Path) -> Path:
        return folder / f"{self.name}.json"
