"""Intervals against worked examples and against each other."""

from __future__ import annotations

import numpy as np
import pytest

from biomedcoop.evaluation.bootstrap import Estimate
from biomedcoop.evaluation.intervals import N_BOOTSTRAP, bootstrap_means, mean_of, share_or_bootstrap, student, wilson


def test_wilson() -> None:
    # z²/(n + z²) and its complement; 81 of 263 is the worked example of Newcombe (1998), Statistics in Medicine 17
    assert wilson(0.0, 10).low == 0.0
    assert wilson(0.0, 10).high == pytest.approx(1.959964**2 / (10 + 1.959964**2))
    assert wilson(1.0, 10).low == pytest.approx(10 / (10 + 1.959964**2))
    assert wilson(1.0, 10).high == 1.0
    middle = wilson(81 / 263, 263)
    assert (middle.low, middle.high) == pytest.approx((0.2553, 0.3662), abs=1e-4)


def test_student() -> None:
    # 2.776 and 2.571 are the quantiles of the printed tables for 4 and 5 degrees of freedom
    for values, quantile in (([1.0, 2.0, 3.0, 4.0, 6.0], 2.776), ([1.0, 2.0, 3.0, 4.0, 6.0, 9.0], 2.571)):
        found, half = student(values), quantile * np.std(values, ddof=1) / len(values) ** 0.5
        assert found.value == pytest.approx(np.mean(values))
        assert (found.low, found.high) == pytest.approx((np.mean(values) - half, np.mean(values) + half), rel=1e-3)
    assert student([0.5]) == Estimate(0.5, None, None)


def test_groups_widen_the_interval() -> None:
    right = np.repeat(np.arange(20) % 2, 10).astype(float)
    alone, _ = bootstrap_means({"names": right}, 0)
    grouped, samples = bootstrap_means({"names": right}, 0, np.repeat(np.arange(20), 10).astype(str))
    assert alone["names"].value == grouped["names"].value == 0.5
    width = [e.high - e.low for e in (alone["names"], grouped["names"])]
    assert width[1] == pytest.approx(np.sqrt(10) * width[0], rel=0.25)
    assert len(samples["names"]) == N_BOOTSTRAP


def test_columns_are_resampled_together() -> None:
    right = np.arange(50) % 3 == 0
    found, samples = bootstrap_means({"a": right.astype(float), "not a": 1.0 - right}, 0)
    np.testing.assert_allclose(samples["a"] + samples["not a"], 1.0)
    both = mean_of([0.5, 0.5], [samples["a"], samples["not a"]])
    assert (both.value, both.low, both.high) == pytest.approx((0.5, 0.5, 0.5))
    assert found["a"].value == pytest.approx(right.mean())


def test_all_right_has_a_width() -> None:
    certain = Estimate(1.0, 1.0, 1.0)
    assert share_or_bootstrap(certain, 40) == wilson(1.0, 40)
    assert share_or_bootstrap(certain, 40, np.repeat(np.arange(20), 2).astype(str)) == wilson(1.0, 20)
    assert share_or_bootstrap(Estimate(0.5, 0.4, 0.6), 40) == Estimate(0.5, 0.4, 0.6)
