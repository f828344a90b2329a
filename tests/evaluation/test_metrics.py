"""Every metric against scikit-learn, its interval against theory, and what is refused."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest
from sklearn import metrics as sk

from biomedcoop.errors import UserError
from biomedcoop.evaluation.bootstrap import paired_difference
from biomedcoop.evaluation.metrics import Metrics, majority_probabilities, score, values_of

CASES = [(2, 90, None), (3, 160, 1), (5, 400, None), (7, 300, 2)]


def draw(classes: int, images: int, seed: int = 0, digits: int | None = None, skill: float = 1.5):
    """Labels of uneven classes and the softmax of noisy logits; rounding to ``digits`` makes ties between images."""
    rng = np.random.default_rng([seed, classes, images])
    uneven = rng.choice(classes, images - classes, p=rng.dirichlet([3.0] * classes))
    labels = np.concatenate([np.arange(classes), uneven]).astype(np.int64)
    logits = rng.normal(size=(images, classes)) + skill * np.eye(classes)[labels]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    if digits is not None:
        p = p.round(digits)
        p[np.arange(images), p.argmax(axis=1)] += 1 - p.sum(axis=1)
        p = p.round(digits)
    return p.astype(np.float32), labels, [f"class {k}" for k in range(classes)]


def estimates(m: Metrics):
    yield from (m.accuracy, m.balanced_accuracy, m.macro_f1, m.auroc, m.calibration_error)
    for c in m.classes:
        yield from (c.sensitivity, c.specificity, c.precision, c.auroc)
    for row in m.confusion_rates:
        yield from row


@pytest.mark.parametrize(("classes", "images", "digits"), CASES)
def test_values_equal_scikit_learns(classes, images, digits):
    p, y, names = draw(classes, images, digits=digits)
    m = score(p, y, names, n_bootstrap=40)
    answer = p.argmax(axis=1)
    matrix = sk.confusion_matrix(y, answer, labels=range(classes))
    assert m.n_images == images
    assert m.accuracy.value == pytest.approx(sk.accuracy_score(y, answer), abs=1e-12)
    assert m.balanced_accuracy.value == pytest.approx(sk.balanced_accuracy_score(y, answer), abs=1e-12)
    assert m.macro_f1.value == pytest.approx(sk.f1_score(y, answer, average="macro", labels=np.unique(y)), abs=1e-12)
    assert np.array_equal(m.confusion, matrix)
    per_class = [sk.roc_auc_score(y == k, p[:, k]) for k in range(classes)]
    assert [c.auroc.value for c in m.classes] == pytest.approx(per_class, abs=1e-12)
    assert m.auroc.value == pytest.approx(np.mean(per_class), abs=1e-12)
    for k, c in enumerate(m.classes):
        assert c.support == (y == k).sum()
        assert c.sensitivity.value == pytest.approx(sk.recall_score(y == k, answer == k), abs=1e-12)
        assert c.specificity.value == pytest.approx(sk.recall_score(y != k, answer != k), abs=1e-12)
        assert c.precision.value == pytest.approx(sk.precision_score(y == k, answer == k), abs=1e-12)
    rates = [[cell.value for cell in row] for row in m.confusion_rates]
    assert np.allclose(rates, matrix / matrix.sum(axis=1, keepdims=True), atol=1e-12)


def test_the_rounded_cases_have_many_ties():
    p, y, _ = draw(7, 300, digits=2)
    k = int(np.bincount(y).argmax())
    assert np.isin(p[y == k, k], p[y != k, k]).mean() > 0.1


def test_calibration_error_by_hand():
    p, y, names = draw(4, 500)
    top, correct = p.max(axis=1).astype(float), p.argmax(axis=1) == y
    expected = 0.0
    for k in range(15):
        inside = (top > k / 15) & (top <= (k + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - top[inside].mean())
    assert score(p, y, names, n_bootstrap=40).calibration_error.value == pytest.approx(expected, abs=1e-12)


def test_kappa_of_grades_equals_scikit_learns():
    p, y, _ = draw(4, 200, digits=1)
    names = ["grade 2", "grade 0", "grade 3", "grade 1"]
    m = score(p, y, names, n_bootstrap=100)
    answer, grade = p.argmax(axis=1), np.array([2, 0, 3, 1])
    expected = sk.cohen_kappa_score(grade[y], grade[answer], weights="quadratic", labels=range(4))
    assert m.grades == ("grade 0", "grade 1", "grade 2", "grade 3")
    assert m.quadratic_kappa.value == pytest.approx(expected, abs=1e-12)
    assert m.quadratic_kappa.low < m.quadratic_kappa.value < m.quadratic_kappa.high
    assert Metrics.from_dict(m.to_dict()).quadratic_kappa.value == pytest.approx(expected, abs=1e-6)
    assert score(p, y, names, groups=["one patient"] * 200, n_bootstrap=40).quadratic_kappa.low is None
    majority = score(majority_probabilities(y, 4), y, names, n_bootstrap=40)
    assert majority.quadratic_kappa.value == 0
    same = score(np.eye(4)[[1, 1]], [1, 1], names, n_bootstrap=40)
    assert same.quadratic_kappa.value is None


def test_other_classes_have_no_kappa():
    m = score(*draw(4, 50), n_bootstrap=40)  # "class 0", "class 1", …
    assert (m.quadratic_kappa, m.grades) == (None, ())
    assert Metrics.from_dict(m.to_dict()).quadratic_kappa is None


def test_intervals_equal_a_plain_bootstrap_with_scikit_learn():
    p, y, names = draw(3, 60, digits=1)
    m = score(p, y, names, n_bootstrap=100, seed=5)
    rng, answer = np.random.default_rng(5), p.argmax(axis=1)
    f1, auroc, cell = [], [], []
    for _ in range(100):
        i = rng.integers(60, size=60)
        present = np.unique(y[i])
        f1.append(sk.f1_score(y[i], answer[i], average="macro", labels=present))
        auroc.append(np.mean([sk.roc_auc_score(y[i] == k, p[i, k]) for k in present]))
        cell.append((answer[i][y[i] == 1] == 2).mean())
    for estimate, samples in ((m.macro_f1, f1), (m.auroc, auroc), (m.confusion_rates[1][2], cell)):
        assert (estimate.low, estimate.high) == pytest.approx(tuple(np.quantile(samples, [0.025, 0.975])), abs=1e-12)


def test_intervals_hold_their_value_and_narrow_with_more_images():
    wide, narrow = (score(*draw(4, n), n_bootstrap=200) for n in (100, 1600))
    for estimate in estimates(wide):
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    ratio = (wide.accuracy.high - wide.accuracy.low) / (narrow.accuracy.high - narrow.accuracy.low)
    assert 3 < ratio < 5  # √16 = 4


@pytest.mark.slow
def test_interval_covers_the_true_value_about_95_times_in_100():
    def sample(rng, images):
        y = rng.integers(3, size=images)
        p = np.exp(rng.normal(size=(images, 3)) + 1.5 * np.eye(3)[y])
        return p / p.sum(axis=1, keepdims=True), y, ["a", "b", "c"]

    rng = np.random.default_rng(1)
    true = values_of(*sample(rng, 200_000))
    runs = [score(*sample(rng, 150), n_bootstrap=200) for _ in range(200)]
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "auroc"):
        covered = sum(getattr(m, name).low <= true[name] <= getattr(m, name).high for m in runs)
        assert 180 <= covered <= 198, name


def test_the_seed_decides_every_bit():
    case = draw(3, 120)
    first = score(*case, n_bootstrap=100, seed=3)
    np.random.seed(99)  # noqa: NPY002 (the global generator must not matter)
    assert score(*case, n_bootstrap=100, seed=3) == first
    assert score(*case, n_bootstrap=100, seed=4) != first


def test_grouped_images_give_wider_intervals():
    p, y, names = draw(3, 60)
    copies = np.repeat(np.arange(60), 5)  # five identical images of each patient tell no more than one
    images = score(p[copies], y[copies], names)
    patients = score(p[copies], y[copies], names, groups=np.array([f"patient {i}" for i in copies]))
    assert (images.n_groups, patients.n_groups) == (None, 60)
    assert patients.accuracy.value == images.accuracy.value
    ratio = (patients.accuracy.high - patients.accuracy.low) / (images.accuracy.high - images.accuracy.low)
    assert 1.8 < ratio < 2.7  # √5 = 2.24


def test_a_class_without_test_images_has_no_value_and_no_part_in_the_means():
    p, y, names = draw(4, 200)
    kept = y != 2
    m = score(p[kept], y[kept], names, n_bootstrap=50)
    absent, answer = m.classes[2], p[kept].argmax(axis=1)
    assert (absent.support, absent.sensitivity.value, absent.auroc.value) == (0, None, None)
    assert absent.specificity.value == pytest.approx((answer != 2).mean())
    assert m.balanced_accuracy.value == pytest.approx(np.mean([m.classes[k].sensitivity.value for k in (0, 1, 3)]))
    assert m.auroc.value == pytest.approx(np.mean([m.classes[k].auroc.value for k in (0, 1, 3)]))
    expected = sk.f1_score(y[kept], answer, average="macro", labels=np.unique(y[kept]))
    assert m.macro_f1.value == pytest.approx(expected, abs=1e-12)
    assert m.to_dict()["classes"][2]["sensitivity"] == {"value": None, "low": None, "high": None}


def test_resamples_without_a_rare_class_do_not_change_the_mean_over_classes():
    """A constant answer has a balanced accuracy of 1/3; over the two classes of such a resample it would be 1/2."""
    labels = np.repeat([0, 1, 2], [40, 4, 12])
    found = score(majority_probabilities(labels, 3), labels, ["a", "b", "c"], folds=5)
    assert str(found.balanced_accuracy) == "0.333 (0.333–0.333)"
    assert found.macro_f1.high < 0.34
    better = labels != 1
    difference = paired_difference(better, labels == 0, labels=labels, folds=5)
    assert (round(difference.low, 6), round(difference.high, 6)) == (0.333333, 0.333333)
    # of a class with one image most resamples of a cross-validation hold none
    labels = np.repeat([0, 1], [40, 1])
    rare = score(majority_probabilities(labels, 2), labels, ["a", "b"], folds=5).balanced_accuracy
    assert (rare.value, rare.low) == (0.5, None)


def test_one_image_and_one_present_class():
    m = score([[0.7, 0.3]], [0], ["benign", "malignant"], n_bootstrap=40)
    assert (m.accuracy.value, m.auroc.value, m.classes[1].precision.value) == (1.0, None, None)
    assert m.calibration_error.value == pytest.approx(0.3)


def test_images_of_one_class_have_a_sensitivity_and_dashes():
    p, _, names = draw(3, 40)
    m = score(p, np.ones(40, dtype=np.int64), names, n_bootstrap=50)
    right = (p.argmax(axis=1) == 1).mean()
    assert m.accuracy.value == m.balanced_accuracy.value == m.classes[1].sensitivity.value == pytest.approx(right)
    undefined = (m.auroc, m.classes[1].specificity, m.classes[1].auroc, m.classes[0].sensitivity)
    assert {estimate.value for estimate in undefined} == {None}
    assert m.classes[0].specificity.value == pytest.approx((p.argmax(axis=1) != 0).mean())
    assert m.classes[1].precision.value == 1
    json.dumps(m.to_dict(), allow_nan=False)


def test_images_without_a_group_are_groups_of_their_own():
    p, y, names = draw(2, 60)
    empty = score(p, y, names, groups=["P1", "P1", "P2", "P2", *[""] * 56])
    named = score(p, y, names, groups=["P1", "P1", "P2", "P2", *(f"s{i}" for i in range(56))])
    assert empty.n_groups == named.n_groups == 58
    assert [c.n_groups for c in empty.classes] == [c.n_groups for c in named.classes]
    assert (empty.accuracy.high - empty.accuracy.low) == pytest.approx(
        named.accuracy.high - named.accuracy.low, abs=0.03
    )


def test_what_rests_on_one_group_has_no_interval():
    p, y, names = draw(3, 90)
    m = score(p, y, names, groups=["P"] * 90, n_bootstrap=40)
    assert m.n_groups == 1
    assert all(e.low is None and e.high is None for e in estimates(m))
    assert m.accuracy.value is not None
    # one class from one patient: its sensitivity has none, what the others have a part in has
    one = score(p, y, names, groups=["P" if k == 1 else f"s{i}" for i, k in enumerate(y)], n_bootstrap=40)
    assert one.classes[1].n_groups == 1
    assert (one.classes[1].sensitivity.low, one.classes[1].auroc.low, one.confusion_rates[1][0].low) == (
        None,
        None,
        None,
    )
    assert None not in (one.accuracy.low, one.classes[0].sensitivity.low, one.classes[1].specificity.low)
    assert one.classes[1].sensitivity.value is not None
    single = score(p[:1], y[:1], names, n_bootstrap=40)
    assert (single.n_groups, single.accuracy.low) == (None, None)


def test_metrics_of_earlier_versions_are_read():
    values = score(*draw(2, 30), n_bootstrap=40).to_dict()
    for entry in values["classes"]:
        del entry["n_groups"]
    del values["quadratic_kappa"], values["grades"]
    assert Metrics.from_dict(values).classes[0].n_groups is None


def test_equal_probabilities_answer_the_first_class():
    m = score([[0.5, 0.5], [0.5, 0.5]], [0, 1], ["a", "b"], n_bootstrap=40)
    assert m.confusion == ((1, 0), (1, 0))


def test_majority_class_is_the_largest_of_the_test_split():
    labels = [2, 1, 1, 0, 1, 2]
    p = majority_probabilities(labels, 4)
    assert p.dtype == np.float32
    assert p.tolist() == [[0, 1, 0, 0]] * 6
    m = score(p, labels, ["a", "b", "c", "d"], n_bootstrap=50)
    assert (m.accuracy.value, m.auroc.value) == (0.5, 0.5)
    assert m.balanced_accuracy.value == pytest.approx(1 / 3)
    assert majority_probabilities([1, 0], 2).tolist() == [[1, 0]] * 2


def test_json_round_trip_is_exact_to_six_digits():
    p, y, names = draw(5, 150)
    m = score(p[y != 3], y[y != 3], names, n_bootstrap=50)
    text = json.dumps(m.to_dict(), allow_nan=False)
    again = Metrics.from_dict(json.loads(text))
    assert json.dumps(again.to_dict()) == text
    assert again.class_names == tuple(names)
    assert again.confusion == m.confusion
    for before, after in zip(estimates(m), estimates(again), strict=True):
        assert after.value == (None if before.value is None else round(before.value, 6))


@pytest.mark.parametrize("broken", [{}, {"accuracy": None}, {"unknown": 1}])
def test_foreign_json_is_refused(broken):
    values = score(*draw(2, 30), n_bootstrap=40).to_dict() | broken if broken else {}
    with pytest.raises(UserError, match="not metrics of this version"):
        Metrics.from_dict(values)


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (np.empty((0, 2)), [], "no images"),
        ([[0.6, 0.6]], [0], "image 0 do not sum to 1"),
        ([[0.5, 0.5], [math.nan, 1.0]], [0, 1], "image 1 are not finite"),
        ([[1.5, -0.5]], [0], "negative"),
        ([[0.5, 0.5]], [2], "label 2 is out of range for 2 classes"),
        ([[0.5, 0.5]], [-1], "label -1 is out of range"),
        ([[0.5, 0.5]], [0.0], "integers"),
        ([[0.5, 0.5]], [0, 1], "expected 1 integers"),
        ([[0.2, 0.3, 0.5]], [0], "2 class names"),
    ],
)
def test_what_cannot_be_scored_is_named(probabilities, labels, message):
    with pytest.raises(UserError, match=message):
        score(probabilities, labels, ["a", "b"])


def test_large_test_splits_are_quick():
    case = draw(7, 5000)
    start = time.perf_counter()
    score(*case)
    assert time.perf_counter() - start < 10  # about 1 s alone; the machine may be shared
