"""Few groups are said, and what they cannot show."""

from __future__ import annotations

import numpy as np
from biomedcoop.evaluation.cautions import class_cautions, group_cautions

from biomedcoop.evaluation.metrics import score


def cautions(groups) -> list[str]:
    labels = np.arange(40) % 2
    p = np.random.default_rng(0).dirichlet([1, 1], 40)
    return list(group_cautions(score(p, labels, ["benign", "malignant"], groups=groups, n_bootstrap=10)))


def test_nothing_is_said_of_images_and_of_many_groups():
    assert cautions(None) == []
    assert cautions([f"P{i}" for i in range(40)]) == []
    assert cautions([""] * 40) == []


def test_fewer_than_ten_groups_are_said():
    (one,) = cautions(["P"] * 40)
    assert one.startswith("All test images come from one group (such as a patient): the numbers have no interval")
    few, _ = cautions([f"P{i % 9}" for i in range(40)])
    assert few.startswith("The test images come from only 9 groups (such as patients)")
    (by_class,) = cautions([f"P{i}" if i % 2 else f"P{i % 6}" for i in range(40)])
    assert by_class == "Classes whose test images come from few groups: benign (3). Their numbers say little."


def test_classes_without_a_test_image_are_said() -> None:
    metrics = score(np.eye(3)[[0, 0, 1]], [0, 0, 1], ["a", "b", "c"], n_bootstrap=5)
    (line,) = class_cautions(metrics)
    assert line.startswith("No test image shows c: ")
    assert list(class_cautions(score(np.eye(2), [0, 1], ["a", "b"], n_bootstrap=5))) == []
