"""Labels that look wrong: those that were changed, and none where all runs do not agree."""

from __future__ import annotations

import numpy as np

from biomedcoop.evaluation.comparison import Predictions
from biomedcoop.evaluation.doubtful_labels import doubtful_labels

NAMES = ("cyst", "stone", "tumor")


def answered(probabilities, labels):
    return Predictions(tuple(map(str, range(len(labels)))), np.asarray(labels), NAMES, {"coop": probabilities})


def test_changed_labels_of_a_good_classifier_are_found_first():
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=300)
    logits = rng.normal(size=(300, 3)) + 6 * np.eye(3)[truth]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    changed = rng.choice(300, 15, replace=False)
    labels = truth.copy()
    labels[changed] = (truth[changed] + 1) % 3
    found = doubtful_labels(answered(p, labels))
    hits = {one.image for one in found} & set(changed.tolist())
    assert len(hits) >= 6
    assert len(hits) >= 0.9 * len(found)
    assert [one.p_label for one in found] == sorted(one.p_label for one in found)
    assert all(one.answer == truth[one.image] for one in found if one.image in hits)


def test_all_runs_must_agree():
    sure, other = np.eye(3)[[0] * 6] * 0.94 + 0.02, np.eye(3)[[0] * 5 + [1]] * 0.94 + 0.02
    labels = [0] * 5 + [1]
    assert [one.image for one in doubtful_labels(answered(np.stack([sure, sure]), labels))] == [5]
    assert doubtful_labels(answered(np.stack([sure, other]), labels)) == []


def test_a_class_of_four_right_answers_accuses_nobody():
    p = np.eye(3)[[0] * 6] * 0.94 + 0.02
    assert [one.image for one in doubtful_labels(answered(p, [0] * 5 + [1]))] == [5]
    assert doubtful_labels(answered(p, [0] * 4 + [1] * 2)) == []


def test_a_class_that_is_never_right_accuses_nobody():
    p = np.eye(3)[[0, 0]] * 0.94 + 0.02
    assert doubtful_labels(answered(p, [1, 2])) == []
