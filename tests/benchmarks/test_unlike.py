"""The study of images unlike the training images: its distances, and which datasets count as the hard case."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.datasets import NAMES
from benchmarks.studies.unlike import CANDIDATES, CHEST, CHOSEN, by_kind
from biomedcoop.classifier.domain import Domain


def cloud(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng, y = np.random.default_rng(seed), np.arange(n) % 2
    return np.eye(2, 12)[y] + 0.05 * rng.standard_normal((n, 12)), y


@pytest.mark.parametrize("candidate", CANDIDATES)
def test_every_distance_tells_another_kind_of_image(candidate: str) -> None:
    (x, y), (more, _) = cloud(32, 0), cloud(200, 1)
    measure, deviations, _ = CANDIDATES[candidate]
    own, found = measure(x, y, np.concatenate([more, np.roll(more, 3, axis=1)]))
    unlike = found > own.mean() + deviations * own.std(ddof=1)
    assert unlike[:200].mean() < 0.1
    assert unlike[200:].all()
    if candidate == CHOSEN:
        domain = Domain.of(x, y)
        assert domain is not None
        assert domain.unlike(more).tolist() == unlike[:200].tolist()


def test_other_chest_images_are_reported_apart() -> None:
    shares = dict.fromkeys(NAMES, 1.0) | dict.fromkeys(CHEST, 0.5) | {"covid_cxr3": 0.1}
    assert by_kind("covid_cxr3", shares) == (0.1, 1.0, 0.5)
    own, far, near = by_kind("busi", shares)
    assert (own, near) == (1.0, None)
    assert far == pytest.approx((7 * 1.0 + 0.5 + 0.5 + 0.1) / 10)
