"""Resampling: what is drawn, and the paired comparison of two methods."""

from __future__ import annotations

import numpy as np
import pytest

from biomedcoop.errors import UserError
from biomedcoop.evaluation.bootstrap import (
    Estimate,
    independent,
    paired_difference,
    resampled_weights,
    resampling_units,
)


def weights(*args, **kwargs):
    return np.concatenate(list(resampled_weights(*args, **kwargs)), axis=1)


def test_every_resample_has_as_many_images_and_blocks_cover_all():
    drawn = weights(7000, 700, 0)  # more than one block
    assert drawn.shape == (7000, 700)
    assert (drawn.sum(axis=0) == 7000).all()
    assert (drawn == 0).mean() == pytest.approx(np.exp(-1), abs=0.005)  # (1 - 1/N)^N


def test_a_group_is_drawn_whole():
    groups = np.array(["a", "b", "a", "c", "b", "a"])
    drawn = weights(6, 50, 1, groups)
    for name in "abc":
        rows = drawn[groups == name]
        assert (rows == rows[0]).all()
    assert (drawn[[0, 1, 3]].sum(axis=0) == 3).all()


def test_a_cross_validation_draws_fewer_and_its_interval_is_wider():
    """The variance grows by 1 + k/(k − 1), 2.25 for five folds (Nadeau and Bengio 2003)."""
    assert (weights(90, 50, 1, folds=5).sum(axis=0) == 40).all()
    assert [independent(n, 2) for n in (1, 2, 90)] == [1, 1, 30]
    right = np.arange(900) < 630
    alone = paired_difference(right, ~right, seed=1)
    crossed = paired_difference(right, ~right, seed=1, folds=5)
    assert crossed.value == alone.value
    assert (crossed.high - crossed.low) / (alone.high - alone.low) == pytest.approx(1.5, abs=0.15)


def test_an_image_without_a_group_is_a_group_of_its_own():
    assert resampling_units(6, ["b", "", "a", "", "b", None]).tolist() == [1, 2, 0, 3, 1, 4]
    assert resampling_units(3, ["", "", ""]).tolist() == resampling_units(3).tolist() == [0, 1, 2]
    alone = weights(60, 200, 3, ["P1", "P1", "P2", "P2", *[""] * 56])
    assert (alone[:4].std(axis=1) > 0).all()
    assert (alone[0] == alone[1]).all()
    assert len(np.unique(alone[4:], axis=0)) == 56


@pytest.mark.parametrize(
    ("n_bootstrap", "groups", "message"),
    [(39, None, "n_bootstrap=39 must be a whole number from 40"), (40, ["a"], "1 groups for 3")],
)
def test_what_cannot_be_drawn(n_bootstrap, groups, message):
    with pytest.raises(UserError, match=message):
        weights(3, n_bootstrap, 0, groups)


def test_paired_difference_matches_theory():
    rng = np.random.default_rng(2)
    hard = rng.random(800) < 0.3
    a, b = ~hard | (rng.random(800) < 0.3), ~hard
    d = a.astype(float) - b
    estimate = paired_difference(a, b, seed=1)
    assert estimate.value == pytest.approx(d.mean())
    half = 1.96 * d.std() / np.sqrt(800)
    assert estimate.low == pytest.approx(d.mean() - half, abs=0.006)
    assert estimate.high == pytest.approx(d.mean() + half, abs=0.006)
    assert estimate.low > 0  # though each method's own interval, ± 0.03, overlaps the other's
    assert paired_difference(a, b, seed=1) == estimate
    assert paired_difference(b, a, seed=1).value == -estimate.value


def test_a_method_does_not_differ_from_itself():
    same = np.random.default_rng(0).random(50) < 0.6
    estimate = paired_difference(same, same)
    assert (estimate.value, estimate.low, estimate.high) == (0, 0, 0)


def test_unpaired_answers_are_refused():
    with pytest.raises(UserError, match="cannot pair"):
        paired_difference([True, False], [True])
    with pytest.raises(UserError, match="cannot pair"):
        paired_difference([], [])


def test_a_difference_resamples_the_groups_that_it_is_told():
    rng = np.random.default_rng(4)
    patient = np.repeat(np.arange(20), 10)  # a patient's images are right or wrong together
    a, b = (rng.random(20) < share for share in (0.7, 0.5))
    images = paired_difference(a[patient], b[patient])
    patients = paired_difference(a[patient], b[patient], groups=[f"P{i}" for i in patient])
    assert patients.value == images.value
    assert 2.5 < (patients.high - patients.low) / (images.high - images.low) < 4  # √10 = 3.2


def test_one_group_and_one_image_have_no_interval():
    assert paired_difference([True, True, False], [True, False, False], groups=["P", "P", "P"]) == Estimate(
        1 / 3, None, None
    )
    assert paired_difference([True], [False]) == Estimate(1.0, None, None)
