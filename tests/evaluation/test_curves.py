"""Curves against scikit-learn's, and sensitivities at a specificity against a search over all thresholds."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import auc
from sklearn.metrics import precision_recall_curve as sklearn_precision_recall
from sklearn.metrics import roc_curve as sklearn_roc

from biomedcoop.errors import UserError
from biomedcoop.evaluation.curves import precision_recall_curve, reliability, roc_curve, sensitivities_at
from biomedcoop.evaluation.metrics import score

NAMES = ("cyst", "stone", "tumor")


@pytest.fixture(scope="module")
def answers():
    """Probabilities [2, 200, 3] with ties, and labels."""
    rng = np.random.default_rng(3)
    labels = rng.integers(3, size=200)
    logits = rng.normal(size=(2, 200, 3)).round(1) + 1.2 * np.eye(3)[labels]
    p = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    return p, labels


def test_roc_is_that_of_scikit_learn(answers):
    p, y = answers
    x, sensitivity = roc_curve(p[0, :, 1], y == 1)
    false, true, _ = sklearn_roc(y == 1, p[0, :, 1], drop_intermediate=False)
    assert x == pytest.approx(false)
    assert sensitivity == pytest.approx(true)


def test_precision_and_recall_are_those_of_scikit_learn(answers):
    p, y = answers
    recall, precision = precision_recall_curve(p[0, :, 1], y == 1)
    other, of_recall, _ = sklearn_precision_recall(y == 1, p[0, :, 1])
    assert precision == pytest.approx(other[:-1][::-1])
    assert recall == pytest.approx(of_recall[:-1][::-1])


def test_the_mean_curve_of_runs_has_their_mean_area(answers):
    p, y = answers
    x, sensitivity = roc_curve(p[:, :, 0], y == 0)
    metrics = score(p, y, NAMES, n_bootstrap=40)
    assert auc(x, sensitivity) == pytest.approx(metrics.classes[0].auroc.value, abs=0.01)


def test_a_class_without_images_has_no_curve(answers):
    p, _ = answers
    nothing = np.zeros(200, dtype=bool)
    assert len(roc_curve(p[0, :, 0], nothing)[0]) == len(precision_recall_curve(p[0, :, 0], nothing)[0]) == 0


def test_reliability_repeats_the_calibration_error(answers):
    p, y = answers
    diagram = reliability(p[:1], y)
    gaps = [
        n * abs(c - r.value) for n, c, r in zip(diagram.images, diagram.confidence, diagram.right, strict=True) if n
    ]
    assert diagram.images.sum() == 200
    assert sum(gaps) / 200 == pytest.approx(score(p[0], y, NAMES, n_bootstrap=40).calibration_error.value)
    assert all(r.value is None for r, n in zip(diagram.right, diagram.images, strict=True) if not n)


@pytest.mark.parametrize("specificity", [0.5, 0.9, 0.97])
def test_sensitivity_at_a_specificity_is_the_best_that_keeps_it(answers, specificity):
    p, y = answers
    for k, point in enumerate(sensitivities_at(specificity, p[:1], y, NAMES, n_bootstrap=60)):
        scores, positive = p[0, :, k], y == k
        allowed = [t for t in (-1.0, *scores) if (scores[~positive] <= t).mean() >= specificity]
        assert point.sensitivity.value == pytest.approx(max((scores[positive] > t).mean() for t in allowed))
        assert point.specificity == pytest.approx((scores[~positive] <= point.threshold).mean())
        assert point.specificity >= specificity
        assert point.sensitivity.low < point.sensitivity.value < point.sensitivity.high


def test_sensitivities_of_groups_are_less_certain(answers):
    p, y = answers
    order = np.argsort(y, kind="stable")
    p, y = np.repeat(p[:1, order], 5, axis=1), np.repeat(y[order], 5)

    def width(groups):
        (first, *_) = sensitivities_at(0.9, p, y, NAMES, groups=groups, n_bootstrap=100)
        return first.sensitivity.high - first.sensitivity.low

    assert width([f"patient {i // 5}" for i in range(1000)]) > 1.5 * width(None)


@pytest.mark.parametrize("value", [0, 1, 1.5, -0.1, "0.9", True, float("nan")])
def test_a_specificity_out_of_range_is_refused(answers, value):
    p, y = answers
    with pytest.raises(UserError, match="between 0 and 1"):
        sensitivities_at(value, p, y, NAMES)
