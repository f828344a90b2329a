"""Resampling: what is drawn, and the paired comparison of two methods."""

from __future__ import annotations

import numpy as np
import pytest

from biomedcoop.errors import UserError
from biomedcoop.evaluation.bootstrap import paired_difference, resampled_weights


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


@pytest.mark.parametrize(
    ("n_bootstrap", "groups", "message"), [(0, None, "n_bootstrap=0"), (5, ["a"], "1 groups for 3")]
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
