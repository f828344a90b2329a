"""Test images whose label looks wrong: a confident answer that no label of these images supports.

The rule is that of confident learning (Northcutt, Jiang & Chuang 2021, "Confident learning: estimating uncertainty in
dataset labels", section 3.1), made stricter: only images that the classifier has not learned from are judged, by their answers
in every run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from biomedcoop.evaluation.comparison import Predictions

RULE = (
    "An image is listed if every run gives it another class than its label, with a probability at least as high as the median of "
    "the right answers of that class, and gives its label less than {limit} on average. A class with fewer than {few} right "
    "answers accuses no label. Only test images are judged: the classifier has not learned from them. A listed label may be "
    "right: these are the images to look at first."
)
UNLIKELY = 0.1
"""Probability of the label below which an image can be listed."""

FEW_RIGHT = 5
"""Right answers of a class below which their median says nothing, so that no label is judged by it."""


@dataclass(frozen=True)
class DoubtfulLabel:
    """One test image whose label looks wrong.

    Attributes:
        image: position among the test images.
        label, answer: class of the label and of the answers, positions in the class names.
        p_label, p_answer: their mean probabilities over the runs.
    """

    image: int
    label: int
    answer: int
    p_label: float
    p_answer: float


def doubtful_labels(predictions: Predictions) -> list[DoubtfulLabel]:
    """The test images whose label looks wrong by :data:`RULE`, the least probable label first.

    Example:
        >>> import numpy as np
        >>> p = np.array([[0.9, 0.1]] * 5 + [[0.95, 0.05], [0.2, 0.8]], dtype=np.float32)
        >>> tested = Predictions(tuple("abcdefg"), np.array([0] * 5 + [1, 1]), ("cyst", "stone"), {"coop": p})
        >>> [(found.image, found.answer) for found in doubtful_labels(tested)]
        [(5, 0)]
    """
    runs, y = predictions.runs(predictions.method), predictions.labels  # [R, N, C]
    mean, answers = runs.mean(axis=0), runs.argmax(axis=2)
    n = np.arange(len(y))
    agreed = (answers == answers[0]).all(axis=0) & (answers[0] != y)
    found = []
    for k in range(mean.shape[1]):
        right = (y == k) & (answers == k).all(axis=0)
        if right.sum() >= FEW_RIGHT:
            sure = mean[:, k] >= np.median(mean[right, k])
            found += np.flatnonzero(agreed & (answers[0] == k) & sure & (mean[n, y] < UNLIKELY)).tolist()
    return [
        DoubtfulLabel(i, int(y[i]), int(answers[0, i]), float(mean[i, y[i]]), float(mean[i, answers[0, i]]))
        for i in sorted(found, key=lambda i: (mean[i, y[i]], i))
    ]
