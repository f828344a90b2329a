"""The coverage study on drawn probabilities: the promise is kept by every score, and a clipped rank breaks it."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.studies.coverage import coverage, promised
from biomedcoop.tasks.options import SCORES


def drawn(n: int = 4000, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a classifier that is often wrong, and labels."""
    generator = np.random.default_rng(0)
    labels = generator.integers(classes, size=n)
    logits = 2 * generator.standard_normal((n, classes)) + 1.5 * np.eye(classes)[labels]
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True), labels


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("n", [9, 15])
def test_the_mean_coverage_is_that_of_the_theory(score: str, n: int) -> None:
    found = coverage(*drawn(), score, n, splits=400)
    assert found.coverage == pytest.approx(promised(n), abs=3 * found.error)
    assert found.error < 0.006


def test_eight_images_give_sets_of_all_classes_and_clipping_breaks_the_promise() -> None:
    found = coverage(*drawn(), "lac", 8, splits=400)
    assert (found.coverage, found.whole, found.size) == (1, 1, 4)
    assert found.clipped < 0.9 - 0.003
    assert found.clipped == pytest.approx(8 / 9, abs=3 * 0.006)
