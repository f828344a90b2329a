"""Means and paired differences of a study's cells, with two 95 % intervals each.

Differences are paired: the same images, draws and seeds. *Over images*: bootstrap over groups of related test images, the seeds
averaged; it says what these datasets tell. *Over datasets*: Student's t over the datasets' means; it says what another dataset
would change. Seeds of a dataset are not independent, and for what learns nothing they are one, so they do not count there.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from biomedcoop.evaluation.bootstrap import Estimate, Floats, Groups
from biomedcoop.evaluation.intervals import bootstrap_means, mean_of, student
from biomedcoop.evaluation.study.cells import Cell


@dataclass(frozen=True)
class Mean:
    """A mean over datasets and seeds, with its interval over images and that over datasets."""

    over_images: Estimate
    over_datasets: Estimate

    @property
    def value(self) -> float:
        return self.over_images.value or 0.0


class Results:
    """All cells of a study.

    Args:
        related: group of each scored image of every dataset, by dataset.
        folder: holds the cells.
        cells: all of them.
        collections: datasets that are averaged together, by the collection's name; those of which one is missing have no mean.
    """

    def __init__(
        self,
        related: Mapping[str, Groups],
        folder: Path,
        cells: Sequence[Cell],
        collections: Mapping[str, Sequence[str]],
    ) -> None:
        self.related = related
        self.files = {(cell.dataset, cell.key): cell.file(folder) for cell in cells}
        self.collections = {
            name: [d for d in datasets if d in related]
            for name, datasets in collections.items()
            if any(d in related for d in datasets)
        }
        self.complete = {name: list(every) for name, every in collections.items() if set(every) <= set(related)}

    def right(self, dataset: str, key: Hashable) -> Floats:
        """[seeds, images]."""
        return np.array(json.loads(self.files[dataset, key].read_text(encoding="utf-8")), dtype=float)

    def mean(self, datasets: Sequence[str], keys: Sequence[Hashable], minus: Sequence[Hashable] = ()) -> Mean:
        """Mean over datasets, seeds and keys, less that of the keys ``minus``."""
        numbers = {dataset: number for number, dataset in enumerate(self.related)}
        values, samples = [], []
        for dataset in datasets:
            scores = np.mean([self.right(dataset, key) for key in keys], axis=0)
            if minus:
                scores = scores - np.mean([self.right(dataset, key) for key in minus], axis=0)
            found, drawn = bootstrap_means({"": scores.mean(0)}, numbers[dataset], self.related[dataset])
            values.append(found[""].value or 0.0)
            samples.append(drawn[""])
        return Mean(mean_of(values, samples), student(values))
