"""Alarms about the test images, and about figures that look too good."""

from __future__ import annotations

import numpy as np

from biomedcoop.evaluation.alarms import answer_alarms, found_less, image_alarms
from biomedcoop.evaluation.metrics import score


def alarms(groups) -> dict[str, str]:
    labels = np.arange(40) % 2
    p = np.random.default_rng(0).dirichlet([1, 1], 40)
    found = image_alarms(score(p, labels, ["benign", "malignant"], groups=groups, n_bootstrap=40))
    return {alarm.kind: alarm.text for alarm in found}


def test_nothing_is_said_of_images_and_of_many_groups():
    assert alarms(None) == {}
    assert alarms([f"P{i}" for i in range(40)]) == {}
    assert alarms([""] * 40) == {}


def test_fewer_than_ten_groups_are_said():
    assert alarms(["P"] * 40)["one group"].startswith(
        "All test images come from one group (such as a patient): the numbers have no interval"
    )
    few = alarms([f"P{i % 9}" for i in range(40)])
    assert few == {
        "few test groups": "The test has only 9 test groups (such as patients): the 95 % intervals are rough and mostly too narrow."
    }
    by_class = alarms([f"P{i}" if i % 2 else f"P{i % 6}" for i in range(40)])
    assert by_class["few test groups"] == (
        "Classes with fewer than 10 test groups: “benign” (3). Their numbers say little."
    )


def test_a_perfect_figure_on_nine_images_gets_wilsons_interval():
    truth = [0] * 9 + [1] * 30 + [2] * 29
    (alarm,) = answer_alarms(score(np.eye(3)[truth], truth, ["a", "b", "c"], n_bootstrap=40))
    assert alarm.kind == "perfect on few images"
    assert alarm.text == (
        "Perfect, but on few images. Wilson's 95 % interval goes down to: 70 % for “a” (9 of 9), 88 % for “c” (29 of 29)."
    )
    groups = [f"P{i % 3}" if i < 9 else f"Q{i}" for i in range(68)]
    (alarm,) = answer_alarms(score(np.eye(3)[truth], truth, ["a", "b", "c"], groups=groups, n_bootstrap=40))
    assert "44 % for “a” (9 of 9 from 3 groups)" in alarm.text


def test_the_only_answer_ever_given_is_not_perfect():
    truth = [0] * 8 + [1] * 30
    alarms = list(answer_alarms(score(np.eye(2)[[0] * 38], truth, ["a", "b"], n_bootstrap=40)))
    assert [alarm.kind for alarm in alarms if alarm.kind != "no better than chance"] == ["class never predicted"]


def test_a_class_is_found_less_than_by_chance():
    truth = [0] * 20 + [1] * 20

    def weak(right: int, share: float) -> list[str]:
        answers = [0] * right + [1] * (40 - right)
        metrics = score(np.eye(2)[answers], truth, ["a", "b"], n_bootstrap=40)
        return [c.name for c in found_less(metrics, share)]

    assert (weak(9, 1.0), weak(10, 1.0)) == (["a"], [])
    assert (weak(4, 0.5), weak(5, 0.5)) == (["a"], [])
    assert found_less(score(np.eye(2)[[1] * 9], [0] * 9, ["a", "b"], n_bootstrap=40)) == []
