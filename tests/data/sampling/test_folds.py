"""Folds: every image in one, related images together, every class on both sides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from biomedcoop.data.dataset import Dataset
from biomedcoop.data.sampling.folds import draw_folds, related_images
from biomedcoop.errors import UserError


def dataset(images: list[np.ndarray], groups: list[str] | None = None) -> Dataset:
    n = len(images)
    return Dataset("d", ("a", "b"), images, [f"{i}" for i in range(n)], [0] * (n - 1) + [1], ["train"] * n, groups)


def test_images_of_a_group_and_copies_are_related() -> None:
    pictures = [np.full((4, 4), value, dtype=np.uint8) for value in (1, 2, 1, 3, 4, 5)]
    assert len(set(related_images(dataset(pictures)).tolist())) == 5
    related = related_images(dataset(pictures, ["p", "q", "", "q", "", "r"])).tolist()
    assert related[0] == related[2]  # a copy
    assert related[1] == related[3]  # a group
    assert len(set(related)) == 4
    chained = related_images(dataset(pictures, ["p", "q", "q", "", "", ""])).tolist()
    assert chained[0] == chained[1] == chained[2]  # the copy of an image whose group has another image


@pytest.mark.parametrize("seed", range(5))
def test_folds_are_stratified_and_keep_related_images_together(seed: int) -> None:
    labels = np.repeat([0, 1, 2], [20, 12, 9])
    related = np.arange(41) // 2
    folds = draw_folds(labels, related, 5, seed)
    assert set(folds.tolist()) == {0, 1, 2, 3, 4}
    assert (folds[:40:2] == folds[1:40:2]).all()
    for label in range(3):
        counts = np.bincount(folds[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 3
        assert counts.max() < counts.sum()
    np.testing.assert_array_equal(folds, draw_folds(labels, related, 5, seed))
    assert (folds != draw_folds(labels, related, 5, seed + 1)).any()


def test_fewer_folds_where_a_class_has_fewer_sets() -> None:
    labels = np.repeat([0, 1], [12, 3])
    assert draw_folds(labels, np.arange(15), 5, 1).max() == 2
    with pytest.raises(UserError, match="all images of a class are copies of one image or come from one group"):
        draw_folds(labels, np.array([*range(12), 12, 12, 12]), 5, 1)


def test_a_missing_file_is_left_to_the_reader_of_images(tmp_path: Path) -> None:
    data = Dataset("d", ("a", "b"), [tmp_path / "gone.png"] * 2, ("x", "y"), [0, 1], ["train"] * 2)
    assert related_images(data).tolist() == [0, 1]


@pytest.mark.parametrize(("shots", "folds"), [(2, 2), (4, 4), (16, 5)])
def test_unrelated_images_are_divided_evenly(shots: int, folds: int) -> None:
    labels = np.repeat(np.arange(7), shots)
    drawn = draw_folds(labels, np.arange(len(labels)), 5, seed=3)
    counts = np.array([np.bincount(drawn[labels == c], minlength=folds) for c in range(7)])
    assert counts.shape == (7, folds)
    assert np.ptp(counts, axis=1).max() <= 1
    assert np.ptp(counts.sum(0)) <= 1  # the larger shares of the classes are in different folds


def test_a_ring_of_sets_cannot_be_divided() -> None:
    """Each class has two sets, and each set shares a class with each of the others."""
    with pytest.raises(UserError, match="cannot be divided"):
        draw_folds(np.array([0, 1, 1, 2, 0, 2]), np.array([0, 0, 1, 1, 2, 2]), 5, seed=1)
