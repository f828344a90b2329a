"""The domain of a classifier: how far from its training images an image may lie before it counts as unlike them.

The distance of an image is the cosine distance of its feature to the mean feature of the nearest class (the nearest-class-mean
detector of out-of-distribution images). An image is unlike the training images if this distance is more than three standard
deviations above the mean distance of a training image, each measured to class means without the image itself. The choice of
distance and limit, with the share of false alarms, is measured in ``docs/results/unlike.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from biomedcoop.lazy import torch

Floats = npt.NDArray[np.float32]

LEAST_IMAGES = 8
"""Number of training images below which their spread is not known well enough for a limit."""
DEVIATIONS = 3.0
FALSE_ALARMS = "about 2 in 100 images of the training images' own source are too"
"""The share that ``benchmarks.studies.unlike`` measured; the table stands in ``docs/results/unlike.md``."""


@dataclass(frozen=True, eq=False)
class Domain:
    """Mean features of the training images by class; no feature of a single image.

    Attributes:
        means: unit vectors float32 [C, E].
        limit: largest cosine distance to the nearest of ``means`` that counts as like the training images.
    """

    means: Floats
    limit: float

    @classmethod
    def of(cls, features: npt.NDArray[np.floating[Any]], labels: npt.NDArray[np.int64]) -> Domain | None:
        """The domain of training images; None for fewer than eight images, or a class with a single one.

        Args:
            features: raw features [N, E].
            labels: int64 [N].

        Example:
            >>> rng = np.random.default_rng(0)
            >>> features = np.float32([1, 0, 0, 0]) + 0.1 * rng.standard_normal((16, 4), dtype=np.float32)
            >>> domain = Domain.of(features, np.repeat([0, 1], 8))
            >>> domain.unlike(np.float32([[1, 0.1, 0, 0], [0, 0, 0, 1]]))
            array([False,  True])
        """
        present, y, counts = np.unique(labels, return_inverse=True, return_counts=True)
        if len(labels) < LEAST_IMAGES or counts.min() < 2:
            return None
        x = _unit(features.astype(np.float64))
        sums = np.zeros((len(present), x.shape[1]))
        np.add.at(sums, y, x)
        nearness = x @ _unit(sums).T  # [N, C]
        nearness[np.arange(len(x)), y] = (x * _unit(sums[y] - x)).sum(axis=1)
        distances = 1 - nearness.max(axis=1)
        limit = distances.mean() + DEVIATIONS * distances.std(ddof=1)
        # rounded, because the last bits of the products above can depend on the number of cores
        return cls(_unit(sums).astype(np.float32), round(float(limit), 6))

    def unlike(self, features: Floats) -> npt.NDArray[np.bool_]:
        """Whether each image is unlike the training images, bool [N], from raw features [N, E]."""
        unlike: npt.NDArray[np.bool_] = 1 - (_unit(features) @ self.means.T).max(axis=1) > self.limit
        return unlike

    def tensors(self) -> dict[str, Any]:
        """The domain as tensors for the artefact."""
        return {MEANS: torch.from_numpy(self.means), LIMIT: torch.tensor(self.limit, dtype=torch.float64)}

    @classmethod
    def take_from(cls, tensors: dict[str, Any]) -> Domain | None:
        """Remove the domain from the tensors of an artefact; None if they hold none.

        Raises:
            KeyError: one of its tensors is missing.
        """
        if MEANS not in tensors:
            return None
        return cls(tensors.pop(MEANS).numpy(), float(tensors.pop(LIMIT)))


MEANS, LIMIT = "domain.means", "domain.limit"


def unlike_note(unlike: int, images: int, facts: Mapping[str, Any]) -> str:
    """The note that some images are unlike the training images, with the share of false alarms; empty if there are none.

    Args:
        unlike, images: number of these images, and of all images.
        facts: facts of the classifier; its own test gives the share of false alarms if there was one.
    """
    if not unlike:
        return ""
    test = facts.get("test", {})
    known = "unlike_training" in test
    alarms = (
        f"{test['unlike_training']} of the {test['n_images']} images of its own test are too" if known else FALSE_ALARMS
    )
    are = "is" if unlike == 1 else "are"
    return (
        f"{unlike} of {images} images {are} unlike the training images ({alarms}); do not rely on the answers for them"
    )


def _unit(vectors: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Rows scaled to length 1; a zero vector stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: npt.NDArray[Any] = vectors / np.where(lengths > 0, lengths, 1)
    return unit
