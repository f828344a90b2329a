"""Results by subgroup: their numbers, what counts as worse, and what is too small to say."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from biomedcoop.evaluation.comparison import Comparison, Predictions
from biomedcoop.evaluation.subgroups import UNKNOWN, by_subgroup
from biomedcoop.evaluation.verdict import judge

NAMES = ("benign", "malignant", "normal")


def results(labels, right, groups=None, n_bootstrap=1000, **columns):
    columns = {name: np.array(values) for name, values in columns.items()}
    return by_subgroup(columns, right, np.asarray(labels), NAMES, groups=groups, n_bootstrap=n_bootstrap)


def answers(labels, shares, seed=0):
    """Right with the probability ``shares`` of each image."""
    return np.random.default_rng(seed).random(len(labels)) < shares


def test_values_are_those_of_the_images_of_a_subgroup() -> None:
    rng = np.random.default_rng(1)
    labels, sites = rng.integers(3, size=300), rng.choice(["A", "B", "C", ""], 300)
    right = answers(labels, np.where(sites == "B", 0.6, 0.8))
    found = results(labels, right, n_bootstrap=200, site=sites)
    assert [(row.column, row.value) for row in found.rows] == [("site", "A"), ("site", "B"), ("site", "C")]
    assert found.missing == {"site": int((sites == "").sum())}
    for row in found.rows:
        own, others = sites == row.value, (sites != row.value) & (sites != "")
        assert row.n_images == own.sum()
        assert row.accuracy.value == pytest.approx(right[own].mean())
        assert row.accuracy.low < row.accuracy.value < row.accuracy.high
        by_class = [right[own & (labels == k)].mean() for k in range(3)]
        assert [e.value for e in row.sensitivities] == pytest.approx(by_class)
        assert row.balanced_accuracy.value == pytest.approx(np.mean(by_class))
        n1, n0 = (np.array([(side & (labels == k)).sum() for k in range(3)]) for side in (own, others))
        gaps = np.array(by_class) - [right[others & (labels == k)].mean() for k in range(3)]
        assert row.difference.value == pytest.approx(np.average(gaps, weights=n1 * n0 / (n1 + n0)))
    json.dumps(found.to_dict(), allow_nan=False)
    assert results(labels, right, n_bootstrap=200, site=sites) == found


def test_a_subgroup_that_is_clearly_worse_is_named() -> None:
    labels = np.arange(400) % 3
    sexes = np.where(np.arange(400) < 150, "F", "M")
    found = results(labels, answers(labels, np.where(sexes == "F", 0.5, 0.85)), sex=sexes)
    assert [(row.value, row.worse) for row in found.rows] == [("F", True), ("M", False)]
    (alarm,) = found.alarms()
    accuracy = 100 * found.rows[0].accuracy.value
    assert alarm.startswith(f"Worse for sex F: right for {accuracy:.1f} % of 150 test images, ")
    assert alarm.endswith(" below the other images of the same classes.")


def test_harder_classes_make_no_subgroup_worse() -> None:
    rng = np.random.default_rng(2)
    old = rng.random(2000) < 0.5
    labels = np.where(rng.random(2000) < np.where(old, 0.8, 0.2), 1, 0)  # the old have more of the hard class
    ages = np.where(old, "60–79", "18–39")
    found = results(labels, answers(labels, np.where(labels == 1, 0.4, 0.9)), age=ages)
    young, aged = found.rows
    assert young.accuracy.low > aged.accuracy.high
    assert aged.difference.low < 0 < aged.difference.high
    assert list(found.alarms()) == []
    assert "No subgroup is marked as worse than the others; differences can still exist." in list(found.notes())


def test_a_site_that_is_a_class_is_said() -> None:
    labels = np.arange(90) % 2
    sites = np.where(labels == 0, "A", "B")
    found = results(labels, labels == 0, site=sites)
    assert found.confounded == ("site",)
    assert [row.difference for row in found.rows] == [UNKNOWN, UNKNOWN]
    (alarm,) = found.alarms()
    assert alarm.startswith("Each class has test images of one site only: the results cannot tell")
    sites[:3] = ["A", "A", "B"]
    assert results(labels, labels == 0, site=sites).confounded == ()


@pytest.mark.parametrize("groups", [None, [f"P{i // 4}" for i in range(100)]], ids=["images", "groups"])
def test_few_images_or_groups_have_no_results(groups) -> None:
    labels = np.arange(100) % 3
    sites = ["A"] * (9 if groups is None else 36) + ["B"] * (91 if groups is None else 64)
    small, large = results(labels, labels == 0, n_bootstrap=50, groups=groups, site=sites).rows
    assert (small.accuracy, small.sensitivities, small.difference, small.n_groups) == (
        UNKNOWN,
        (),
        UNKNOWN,
        groups and 9,
    )
    assert large.accuracy.value is not None
    assert large.difference == UNKNOWN  # nine others are too few to compare with
    notes = list(results(labels, labels == 0, n_bootstrap=50, groups=groups, site=sites).notes())
    assert notes == [f"Subgroups with fewer than 10 images or groups have no results: site A ({small.n_images})."]


def test_groups_are_resampled_whole() -> None:
    labels, sexes = np.repeat(np.arange(60) % 3, 5), np.repeat(["F", "M"] * 30, 5)
    right = np.repeat(answers(np.arange(60), 0.7), 5)
    patients = results(labels, right, groups=[f"P{i // 5}" for i in range(300)], sex=sexes).rows[0].accuracy
    single = results(labels, right, sex=sexes).rows[0].accuracy
    assert 1.7 < (patients.high - patients.low) / (single.high - single.low) < 2.8  # √5 = 2.24


def test_without_columns_there_are_no_results() -> None:
    assert results([0, 1], np.ones(2, bool)) is None
    assert results([0, 1], np.ones(2, bool), sex=["F", "F"]) is None


def test_values_are_in_their_order() -> None:
    codes = [str(number) for number in (10, 9, 2, 1)] * 20
    rows = results(np.arange(80) % 3, np.ones(80, bool), n_bootstrap=40, site=codes).rows
    assert [row.value for row in rows] == ["1", "2", "9", "10"]


def test_a_false_alarm_is_rare() -> None:
    alarms = 0
    for seed in range(50):
        rng = np.random.default_rng(seed)
        labels = rng.integers(3, size=150)
        columns = {f"c{k}": rng.choice(["A", "B", "C", "D"], 150, p=[0.1, 0.2, 0.3, 0.4]) for k in range(3)}
        found = results(labels, rng.random(150) < 0.75, n_bootstrap=200, **columns)
        alarms += any(row.worse for row in found.rows)
    assert alarms <= 6  # at most 2.5 of 50 are expected


def test_the_verdict_names_a_worse_subgroup() -> None:
    labels, sexes = np.arange(400) % 3, np.where(np.arange(400) < 150, "F", "M")
    right = answers(labels, np.where(sexes == "F", 0.5, 0.85))
    p = np.eye(3)[np.where(right, labels, (labels + 1) % 3)]
    predictions = Predictions(tuple(map(str, range(400))), labels, NAMES, {"coop": p}, subgroups={"sex": sexes})
    tested = Comparison.of(predictions, n_bootstrap=200)
    assert tested.subgroups == results(labels, right, n_bootstrap=200, sex=sexes)
    assert [f.text for f in judge(tested) if f.kind == "subgroup" and f.alarm] == list(tested.subgroups.alarms())
    assert Comparison.of(replace(predictions, subgroups={}), n_bootstrap=40).subgroups is None


def test_few_images_of_a_class_have_no_sensitivity() -> None:
    labels = np.array([0] * 40 + [1] * 9 + [0] * 20 + [1] * 20)
    found = results(labels, labels == 0, n_bootstrap=50, site=["A"] * 49 + ["B"] * 40)
    assert [[e.value for e in row.sensitivities] for row in found.rows] == [[1, None, None], [1, 0, None]]
    assert [row.balanced_accuracy.value for row in found.rows] == [0.5, 0.5]
    uneven = results(np.arange(50) % 3, np.ones(50, bool), n_bootstrap=50, site=["A"] * 29 + ["B"] * 21)
    assert [row.balanced_accuracy.value for row in uneven.rows] == [None, None]
