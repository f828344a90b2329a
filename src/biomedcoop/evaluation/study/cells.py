"""A cell of a study: one dataset under one condition, all seeds together."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path

Answers = list[list[int]]
"""1 for each correctly classified test image, else 0; [seeds][images]."""

Compute = Callable[[str, Hashable, str], Answers]
"""Function of (dataset, key, backbone) that returns answers; it is defined in a module, because other processes call it."""


@dataclass(frozen=True)
class Cell:
    """One dataset under one condition.

    Attributes:
        dataset: name of the dataset.
        key: the condition, in the form that ``compute`` accepts.
        name: name of the file with the answers, without its ending.
        cost: relative cost; the most expensive cells are computed first.
    """

    dataset: str
    key: Hashable
    name: str
    cost: float = 0.0

    def file(self, folder: Path) -> Path:
        return folder / f"{self.name}.json"
