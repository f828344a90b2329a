"""The tests of differences agree with scipy, with numbers worked out by hand and with published ones."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from biomedcoop.benchmark.statistics import (
    Ranks,
    average_ranks,
    bootstrap_p,
    critical_difference,
    holm,
    paired_t,
    wilcoxon,
)

# Demšar (2006), table 6: AUC of C4.5, C4.5+m, C4.5+cf, C4.5+m+cf on fourteen datasets. The two last values of the last but one,
# both printed as 0.975, have ranks 2 and 3 there.
DEMSAR = np.array(
    [
        *([0.763, 0.768, 0.771, 0.798], [0.599, 0.591, 0.590, 0.569], [0.954, 0.971, 0.968, 0.967]),
        *([0.628, 0.661, 0.654, 0.657], [0.882, 0.888, 0.886, 0.898], [0.936, 0.931, 0.916, 0.931]),
        *([0.661, 0.668, 0.609, 0.685], [0.583, 0.583, 0.563, 0.625], [0.775, 0.838, 0.866, 0.875]),
        *([1.000, 1.000, 1.000, 1.000], [0.940, 0.962, 0.965, 0.962], [0.619, 0.666, 0.614, 0.669]),
        *([0.972, 0.981, 0.9751, 0.975], [0.957, 0.978, 0.946, 0.970]),
    ]
)


def test_average_ranks_are_those_of_demsar() -> None:
    ranks = average_ranks(DEMSAR)
    assert ranks.ranks == pytest.approx((3.143, 2.000, 2.893, 1.964), abs=5e-4)
    assert ranks.datasets == 14
    assert ranks.friedman_p == pytest.approx(stats.friedmanchisquare(*DEMSAR.T).pvalue)


@pytest.mark.parametrize(
    ("k", "q"),
    [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (7, 2.949), (8, 3.031), (9, 3.102), (10, 3.164)],
)
def test_the_critical_difference_uses_the_published_quantiles(k: int, q: float) -> None:
    # Demšar (2006), table 5a
    assert critical_difference(k, 14) == pytest.approx(q * (k * (k + 1) / (6 * 14)) ** 0.5, abs=1.5e-3)


def test_friedman_without_ties_is_its_formula() -> None:
    values = np.array([[0.9, 0.8, 0.7, 0.6], [0.8, 0.9, 0.7, 0.6], [0.9, 0.7, 0.8, 0.6], [0.6, 0.9, 0.8, 0.7]])
    n, k = values.shape
    ranks = average_ranks(values)
    chi2 = 12 * n / (k * (k + 1)) * (sum(r**2 for r in ranks.ranks) - k * (k + 1) ** 2 / 4)
    assert ranks.friedman_p == pytest.approx(stats.chi2.sf(chi2, k - 1))


def test_cliques_join_methods_within_the_critical_difference() -> None:
    ranks = Ranks((1.0, 2.0, 3.5, 4.0), 0.01, 1.6, 10)
    assert ranks.cliques() == [(1.0, 2.0), (2.0, 3.5), (3.5, 4.0)]
    assert Ranks((1.0, 2.0, 3.0), 0.01, 5.0, 10).cliques() == [(1.0, 3.0)]
    assert Ranks((1.0, 3.0), 0.01, 1.0, 10).cliques() == []


def test_equal_methods_share_their_rank() -> None:
    ranks = average_ranks(np.full((5, 3), 0.7))
    assert ranks.ranks == (2.0, 2.0, 2.0)
    assert ranks.cliques() == [(2.0, 2.0)]
    assert ranks.friedman_p == 1.0


def test_one_dataset_has_ranks_but_no_test() -> None:
    ranks = average_ranks(np.array([[0.9, 0.8, 0.7]]))
    assert (ranks.friedman_p, ranks.critical_difference, ranks.cliques()) == (None, None, [])


@pytest.mark.parametrize("n", [2, 5, 6, 9, 12])
def test_wilcoxon_is_scipys_exact_one(n: int) -> None:
    differences = np.random.default_rng(n).normal(0.3, 1, n)
    expected = stats.wilcoxon(differences, method="exact").pvalue
    assert wilcoxon(list(differences)) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_wilcoxon_with_ties_and_zeros_counts_every_sign_pattern(seed: int) -> None:
    differences = np.random.default_rng(seed).integers(-1, 4, 9) / 10
    known = differences[differences != 0]
    ranks = stats.rankdata(np.abs(known))
    observed = min(ranks[known > 0].sum(), ranks[known < 0].sum())
    sums = [float(np.dot(ranks, signs)) for signs in product((0, 1), repeat=len(known))]
    expected = min(1.0, 2 * np.mean([total <= observed for total in sums]))
    assert wilcoxon(list(differences)) == pytest.approx(expected)


def test_across_datasets_nothing_can_be_said_of_one_dataset_or_of_equal_methods() -> None:
    assert wilcoxon([0.1]) is None
    assert paired_t([0.1]) is None
    assert wilcoxon([0.0, 0.0, 0.0]) == 1.0
    assert paired_t([0.0, 0.0, 0.0]) == 1.0
    assert paired_t([0.1, 0.1, 0.1]) is None  # no variance to judge by


def test_paired_t_is_scipys() -> None:
    a, b = np.random.default_rng(0).random((2, 8))
    assert paired_t(list(a - b)) == pytest.approx(stats.ttest_rel(a, b).pvalue)


def test_holm_is_worked_out_by_hand() -> None:
    # sorted 0.005, 0.01, 0.03, 0.04: × 4, 3, 2, 1 and never below the one before
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_bootstrap_p_value_is_uniform_where_nothing_differs() -> None:
    rng = np.random.default_rng(0)
    p = []
    for _ in range(400):
        sample = rng.normal(size=60)
        p.append(bootstrap_p(sample[rng.integers(60, size=(400, 60))].mean(axis=1)))
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.035)
    assert bootstrap_p(np.zeros(100)) == 1.0
