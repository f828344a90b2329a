"""Deletion and insertion curves, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from biomedcoop.explain.faithfulness import deletion, insertion


@pytest.fixture
def crop() -> np.ndarray:
    """One bright quarter in the dark."""
    crop = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    crop[:, :4, :4] = 240
    return crop


def bright(crops: np.ndarray) -> np.ndarray:
    """Class 1 is as probable as the quarter is bright."""
    share = crops[:, :4, :4].mean(axis=(1, 2, 3)) / 240
    return np.stack([1 - share, share], axis=1).astype(np.float32)


TRUE = np.where(np.arange(8)[:, None] < 4, 2.0, 0.0)[None] + np.where(np.arange(8) < 4, 2.0, 0.0)
CLASS = np.array([1])


def test_deletion_by_hand(crop: np.ndarray) -> None:
    curve = deletion(crop, TRUE, CLASS, bright, steps=4)
    assert curve.shares.tolist() == [0, 0.25, 0.5, 0.75, 1]
    # the mean colour is a quarter of the bright one
    assert curve.probabilities.tolist() == [[1, 0.25, 0.25, 0.25, 0.25]]
    assert curve.auc == pytest.approx([(1 + 0.25) / 2 / 4 + 3 * 0.25 / 4])


def test_a_true_map_deletes_early_and_inserts_early(crop: np.ndarray) -> None:
    opposite = -TRUE
    assert deletion(crop, TRUE, CLASS, bright).auc < deletion(crop, opposite, CLASS, bright).auc
    assert insertion(crop, TRUE, CLASS, bright).auc > insertion(crop, opposite, CLASS, bright).auc


def test_insertion_ends_in_the_image(crop: np.ndarray) -> None:
    curve = insertion(crop, TRUE, CLASS, bright, baseline="blur")
    assert curve.probabilities[0, -1] == 1
    assert 0.1 < curve.probabilities[0, 0] < 1


def test_the_other_class_is_followed(crop: np.ndarray) -> None:
    curve = deletion(crop, TRUE, np.array([0]), bright, steps=4)
    assert curve.probabilities.tolist() == [[0, 0.75, 0.75, 0.75, 0.75]]


def test_wrong_arguments(crop: np.ndarray) -> None:
    with pytest.raises(ValueError, match="no baseline 'black'; there are: mean, blur"):
        deletion(crop, TRUE, CLASS, bright, baseline="black")
    with pytest.raises(ValueError, match="steps=0"):
        deletion(crop, TRUE, CLASS, bright, steps=0)
