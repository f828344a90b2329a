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

from biomedcoop.data.images.facts import Tally
from biomedcoop.lazy import torch

Floats = npt.NDArray[np.float32]

LEAST_IMAGES = 8
"""Number of training images below which their spread is not known well enough for a limit."""
LEAST_OF_CLASS = 2
"""Number of training images of each class: without one of them, there must be a mean for it."""
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
        """The domain of training images; None if they are too few, see :func:`can_tell`.

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
        if not can_tell(labels):
            return None
        own = left_out_distances(features, labels)
        limit = own.mean() + DEVIATIONS * own.std(ddof=1)
        # rounded, because the last bits of the products above can depend on the number of cores
        return cls(class_means(features, labels).astype(np.float32), round(float(limit), 6))

    def unlike(self, features: Floats) -> npt.NDArray[np.bool_]:
        """Whether each image is unlike the training images, bool [N], from raw features [N, E]."""
        unlike: npt.NDArray[np.bool_] = distances(features, self.means) > self.limit
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


def can_tell(labels: npt.NDArray[np.int64]) -> bool:
    """Whether training images suffice for a domain: eight in all, and two of each class that occurs, from labels int64 [N]."""
    return len(labels) >= LEAST_IMAGES and bool(np.unique(labels, return_counts=True)[1].min() >= LEAST_OF_CLASS)


CANNOT_TELL = (
    f"The model cannot mark images that are unlike its training images: this takes at least {LEAST_IMAGES} training images, and "
    f"{LEAST_OF_CLASS} of each class"
)


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
    are = "is" if unlike == 1 else "are"
    alarms = FALSE_ALARMS
    if known:
        same = test["unlike_training"]
        alarms = f"so {'is' if same == 1 else 'are'} {same} of the {test['n_images']} images of its own test"
    return (
        f"{unlike} of {images} images {are} unlike the training images ({alarms}); do not rely on the answers for them"
    )


def closing_notes(tally: Tally, facts: Mapping[str, Any], named: bool = True) -> list[str]:
    """What a user should know of images that were predicted, a sentence each.

    Args:
        facts: facts of the classifier.
        named: see :meth:`Tally.notes`.
    """
    unlike = unlike_note(tally.unlike, tally.images, facts)
    return [*tally.notes(named), *([unlike] if unlike else [])]


def class_means(features: npt.NDArray[Any], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Mean direction of each class that occurs, unit vectors [C, E], from features [N, E]."""
    return unit(_sums(unit(features), labels)[0])


def distances(features: npt.NDArray[Any], means: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Cosine distance [N] of features [N, E] to the nearest of unit vectors [C, E]."""
    nearest: npt.NDArray[Any] = 1 - (unit(features) @ means.T).max(axis=1)
    return nearest


def left_out_distances(features: npt.NDArray[Any], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Cosine distance [N] of each training image to the nearest class mean, its own class's taken without the image."""
    x = unit(features)
    sums, y = _sums(x, labels)
    nearness = x @ unit(sums).T  # [N, C]
    nearness[np.arange(len(x)), y] = (x * unit(sums[y] - x)).sum(axis=1)
    left_out: npt.NDArray[np.float64] = 1 - nearness.max(axis=1)
    return left_out


def _sums(x: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float64], Any]:
    """Sum of the rows of each class that occurs [C, E], and the class of each row among these [N]."""
    present, y = np.unique(labels, return_inverse=True)
    sums = np.zeros((len(present), x.shape[1]))
    np.add.at(sums, y, x)
    return sums, y


def unit(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Rows scaled to length 1, in double precision; a zero vector stays zero."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=-1, keepdims=True)
    scaled: npt.NDArray[np.float64] = vectors / np.where(lengths > 0, lengths, 1)
    return scaled
