"""Scores, thresholds and prediction sets: the published numbers, and the promise on drawn scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from biomedcoop.classifier.conformal import (
    class_thresholds,
    position,
    random_numbers,
    set_scores,
    threshold,
)
from biomedcoop.tasks.options import SCORES
from biomedcoop.tasks.plan import images_needed

ALPHAS = (0.1, 0.05, 0.3, 0.5)
CASES = ("n64", "n16", "n19", "n9", "n8", "adapt_split", "adapt_same")
SCALE = 1 / 0.07


def interpolated(scores: np.ndarray, alpha: float) -> np.ndarray:
    """The threshold of torchcp 0.1.3, which the published numbers use: a quantile at level (n+1)(1−α)/n, interpolated."""
    n = scores.shape[-1]
    level = (n + 1) * (1 - alpha) / n
    return np.quantile(scores, level, axis=-1) if level <= 1 else np.full(scores.shape[:-1], np.inf)


def of_labels(by_rank: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Numbers by rank, 0 the most probable, as numbers by class."""
    rank = np.argsort(np.argsort(-probabilities, axis=-1, kind="stable"), axis=-1, kind="stable")
    return np.take_along_axis(by_rank, rank, axis=-1)


@pytest.fixture(scope="module")
def published(later: Path) -> dict[str, np.ndarray]:
    with np.load(later / "conformal.npz") as file:
        return dict(file)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("score", SCORES)
def test_scores_and_sets_equal_the_published_ones(case: str, score: str, published: dict[str, np.ndarray]) -> None:
    calibration, labels = published[f"{case}/probs_calibration"], published[f"{case}/labels_calibration"]
    tested = published[f"{case}/probs_test" if case.startswith("adapt") else "probs_test"]
    for alpha in ALPHAS:
        key = f"{case}/{score}/alpha{alpha}"
        u, u_test = published.get(f"{key}/u_calibration"), published.get(f"{key}/u_test")
        own = set_scores(calibration, score, u)[np.arange(len(labels)), labels]
        # the published code counts the share of a class's own probability from the other end for test images
        found = set_scores(tested, score, None if score == "lac" else of_labels(1 - u_test, tested))
        # README of the golden numbers: float32 against float64 differs by 8e-7
        np.testing.assert_allclose(own, published[f"{key}/calibration_scores"], atol=8e-6)
        np.testing.assert_allclose(found, published[f"{key}/test_scores"], atol=8e-6)
        limit = interpolated(own, alpha)
        np.testing.assert_allclose(limit, published[f"{key}/quantile"], atol=2e-6)
        clear = ~np.isclose(found, limit, rtol=0, atol=1e-5)
        assert np.array_equal((found < limit)[clear], published[f"{key}/sets"][clear])
        textbook = threshold(own, alpha)
        clear = ~np.isclose(found, textbook, rtol=0, atol=1e-5)
        assert np.array_equal((found <= textbook)[clear], published[f"{key}/textbook_sets"][clear])


@pytest.mark.parametrize(("n", "alpha", "k"), [(9, 0.1, 9), (8, 0.1, 9), (19, 0.05, 19), (18, 0.05, 19), (10, 0.3, 8)])
def test_the_rank_of_the_threshold(n: int, alpha: float, k: int) -> None:
    assert position(n, alpha) == k
    assert (n >= images_needed(alpha)) == (k <= n)
    scores = np.random.default_rng(0).permutation(n).astype(float)  # 0..n-1, so that the k-th smallest is k - 1
    assert threshold(scores, alpha) == (k - 1 if k <= n else np.inf)


def test_sets_cover_and_clipping_the_rank_does_not() -> None:
    generator = np.random.default_rng(1)
    scores = generator.random((20_000, 6))  # five calibration images and one new image
    own, new = scores[:, :5], scores[:, 5]
    # the deviation of a mean of 20,000 is below 0.0036
    assert (new <= threshold(own, 0.25)).mean() == pytest.approx(5 / 6, abs=0.011)
    assert (new <= threshold(own, 0.1)).all()  # six of six: five images are too few for 0.9
    clipped = own.max(axis=1)
    assert (new <= clipped).mean() == pytest.approx(5 / 6, abs=0.011)  # below the promise of 0.9


def test_thresholds_of_classes_come_from_their_own_images() -> None:
    scores, labels = np.array([0.1, 0.9, 0.2, 0.8, 0.3]), np.array([0, 1, 0, 1, 0])
    assert class_thresholds(scores, labels, 3, 0.5).tolist() == [0.2, 0.9, np.inf]
    assert class_thresholds(scores, labels, 3, 0.25).tolist() == [0.3, np.inf, np.inf]


def test_random_numbers_follow_from_the_image_alone_and_are_uniform() -> None:
    features = np.random.default_rng(2).standard_normal((4000, 3)).astype(np.float32)
    u = random_numbers(features)
    assert np.array_equal(u[7:9], random_numbers(features[7:9]))
    assert ((u >= 0) & (u < 1)).all()
    counts = np.histogram(u, bins=10, range=(0, 1))[0]
    assert abs(counts - 400).max() < 90  # 4.7 deviations of a count


@pytest.mark.parametrize(("text", "score"), [("mean_raw", s) for s in SCORES] + [("template_unit", "lac")])
def test_sets_from_a_fit_for_each_candidate_equal_the_published_ones(
    text: str, score: str, later: Path, parity: Path
) -> None:
    with np.load(later / "fca.npz") as file:
        published = dict(file)
    with np.load(parity / "encoders.npz") as file:
        train, test = (unit(file[f"{name}_image_features_raw"]) for name in ("train", "test"))
    t, candidates = published[f"{text}/text"].astype(float), np.arange(4)
    for shots, alpha in ((16, 0.1), (16, 0.05), (2, 0.1)):
        at, labels = published[f"k{shots}/calibration_index"], published[f"k{shots}/calibration_labels"]
        key = f"{text}/k{shots}/{score}/alpha{alpha}"
        sums = np.stack([train[at][labels == c].sum(axis=0) for c in candidates])
        for i, x in enumerate(test):
            # SS-Text on the shots and the test image as one of class c: s · Σ f + t
            prototypes = unit(SCALE * (sums + np.eye(4)[:, :, None] * x) + t)  # [candidate, C, E]
            own, new = softmax(SCALE * train[at] @ prototypes.transpose(0, 2, 1)), softmax(SCALE * prototypes @ x)
            np.testing.assert_allclose(new.mean(axis=0), published[f"{key}/predictions"][i], atol=6e-6)
            u, u_new = ([None] * 4, None) if score == "lac" else (published[f"{key}/u_calibration"][i], None)
            if score != "lac":
                u_new = of_labels(1 - published[f"{key}/u_test"][i], new)
            scores = np.stack([set_scores(own[c], score, u[c])[np.arange(len(at)), labels] for c in candidates])
            found = set_scores(new, score, u_new)
            # README of the golden numbers: float32 against float64 differs by 1.1e-6, and by 2.1e-7 in the quantile
            np.testing.assert_allclose(scores, published[f"{text}/k{shots}/{score}/calibration_scores"][i], atol=1e-5)
            np.testing.assert_allclose(found, published[f"{key}/test_scores"][i], atol=1e-5)
            limit, candidate = interpolated(scores, alpha), found[candidates, candidates]
            np.testing.assert_allclose(limit, published[f"{key}/quantile"][i], atol=2e-6)
            clear = abs(candidate - limit) > 3e-7
            assert np.array_equal((candidate < limit)[clear], published[f"{key}/sets"][i][clear])
            textbook = candidate <= threshold(scores, alpha)
            assert np.array_equal(textbook, published[f"{key}/textbook_sets"][i])


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors.astype(float) / np.linalg.norm(vectors.astype(float), axis=-1, keepdims=True)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
