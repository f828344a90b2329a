"""Means and paired differences of a study's cells, with two 95 % intervals each.

Differences are paired: both conditions use the same images, draws and seeds. The interval *over images* is a bootstrap over groups
of related test images, with the mean over seeds; it holds for these datasets. The interval *over datasets* is Student's t over the
means of the datasets; it shows how another dataset could change the result. Seeds do not count as observations, because the seeds
of a dataset are not independent.
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
    """A mean over datasets and seeds, with its interval over images and its interval over datasets."""

    over_images: Estimate
    over_datasets: Estimate

    @property
    def value(self) -> float:
        return self.over_images.value or 0.0


class Results:
    """All cells of a study.

    Args:
        related: dataset -> group of each test image.
        folder: folder of the cells.
        cells: all cells of the study.
        collections: collection -> datasets to average; a collection with a missing dataset has no mean.
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
        """1 for each correctly classified image, else 0; [seeds, images]."""
        return np.array(json.loads(self.files[dataset, key].read_text(encoding="utf-8")), dtype=float)

    def mean(self, datasets: Sequence[str], keys: Sequence[Hashable], minus: Sequence[Hashable] = ()) -> Mean:
        """Mean over datasets, seeds and keys, minus the mean of the keys ``minus``."""
        numbers = {dataset: number for number, dataset in enumerate(self.related)}
        values, samples = [], []
        for dataset in datasets:
            scores = np.mean([self.right(dataset, key) for key in keys], axis=0)
            if minus:
                scores = scores - np.mean([self.right(dataset, key) for key in minus], axis=0)
            estimates, resampled = bootstrap_means({"": scores.mean(0)}, numbers[dataset], self.related[dataset])
            values.append(estimates[""].value or 0.0)
            samples.append(resampled[""])
        return Mean(mean_of(values, samples), student(values))
