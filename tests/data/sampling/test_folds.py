"""Folds of a cross-validation: about equal shares of every class, units whole, and no division where none is possible."""

from __future__ import annotations

import random
from collections.abc import Hashable

import numpy as np
import pytest

from biomedcoop.data.dataset import Dataset
from biomedcoop.data.sampling.folds import draw_folds, units_of


@pytest.mark.parametrize(("shots", "folds"), [(2, 2), (4, 4), (5, 5), (16, 5)])
def test_every_fold_has_its_share_of_every_class(shots: int, folds: int) -> None:
    labels = np.repeat(np.arange(7), shots)
    drawn = draw_folds(labels, list(range(len(labels))), 5, seed=3)
    counts = np.array([np.bincount(drawn[labels == c], minlength=folds) for c in range(7)])
    assert counts.shape == (7, folds)
    assert np.ptp(counts, axis=1).max() <= 1
    assert np.ptp(counts.sum(0)) <= 1  # the larger shares of the classes are in different folds
    assert (drawn == draw_folds(labels, list(range(len(labels))), 5, seed=3)).all()
    assert shots == 2 or (drawn != draw_folds(labels, list(range(len(labels))), 5, seed=4)).any()


def test_units_stay_whole_and_classes_uneven() -> None:
    chance = random.Random(1)
    labels = np.array([c for c, n in enumerate((40, 12, 7)) for _ in range(n)])
    units: list[Hashable] = [f"{c}-{chance.randrange(3 + n // 3)}" for c, n in zip(labels, labels, strict=True)]
    drawn = draw_folds(labels, units, 5, seed=1)
    for unit in set(units):
        assert len(set(drawn[[i for i, own in enumerate(units) if own == unit]])) == 1
    for c in range(3):
        assert len(set(drawn[labels == c])) == drawn.max() + 1


@pytest.mark.parametrize(
    ("labels", "units"),
    [
        ([0, 0, 1], ["a", "b", "c"]),  # one image in a class
        ([0, 0, 1, 1], ["a", "b", "c", "c"]),  # one unit in a class
        ([0, 1, 1, 2, 0, 2], ["a", "a", "b", "b", "c", "c"]),  # each class in two units, which share classes in a ring
    ],
)
def test_no_division(labels: list[int], units: list[Hashable]) -> None:
    assert draw_folds(np.array(labels), units, 5, seed=1).tolist() == [0] * len(labels)


def test_units_are_groups_or_images() -> None:
    data = Dataset("d", ("x", "y"), [b""] * 4, tuple("abcd"), [0, 0, 1, 1], ["train"] * 4, ["p", "p", "", ""])
    drawn = np.array([3, 0, 1, 3, 2])
    units = units_of(data, drawn)
    assert [units.index(unit) for unit in units] == [0, 1, 1, 0, 4]
