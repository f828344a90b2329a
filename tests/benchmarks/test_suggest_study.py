"""The study of images to label next: its rules, and what a pool may hold."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.studies.suggest import RULES, pool_of
from biomedcoop.data.dataset import Dataset


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_takes_one_image_of_a_group(rule: str) -> None:
    rng = np.random.default_rng(0)
    p, f = rng.dirichlet([1, 1, 1], 40), rng.standard_normal((40, 6))
    groups = np.array([f"g{k % 30}" for k in range(40)])
    order = RULES[rule](p, f, f[:3], 5, groups)
    assert len(order) == len(set(groups[order].tolist())) == 5
    assert RULES[rule](p, f, f[:3], 5, groups).tolist() == order.tolist()


def test_a_pool_holds_no_labelled_group() -> None:
    images, labels = np.zeros((6, 4, 4, 3), dtype=np.uint8), np.array([0, 1, 0, 1, 0, 1])
    splits = np.array(["train"] * 5 + ["test"])
    data = Dataset("scans", ("cyst", "stone"), images, tuple("abcdef"), labels, splits)
    groups = np.array(["g", "h", "g", "k", "l", "m"])
    assert pool_of(data, groups, np.array([0, 1])).tolist() == [3, 4]
