"""What a classifier says of images: probabilities, those before its temperature, and prediction sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from biomedcoop.classifier.classifier import Classifier


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers about N images.

    Attributes:
        probabilities: float32 [N, C].
        temperature: the classifier's temperature.
        uncalibrated: probabilities with a temperature of 1, float32 [N, C].
        members: whether each class is in the prediction set, bool [N, C]; None for a classifier without sets.
    """

    probabilities: npt.NDArray[np.float32]
    temperature: float
    uncalibrated: npt.NDArray[np.float32]
    members: npt.NDArray[np.bool_] | None

    @classmethod
    def of(cls, classifier: Classifier, features: npt.NDArray[np.float32]) -> Answers:
        """The answers of a classifier about raw features [N, E]."""
        p = classifier.probabilities(features)
        plain = p if classifier.temperature == 1 else replace(classifier, temperature=1.0).probabilities(features)
        members = None if classifier.sets is None else classifier.members(features, p)
        return cls(p, classifier.temperature, plain, members)


def put_together(parts: Sequence[Answers], places: Sequence[npt.NDArray[np.bool_]]) -> Answers:
    """Answers about all images, from those about parts of them; their mean temperature stands for all.

    Args:
        places: which of all images each part is about, bool [N].
    """

    def joined(name: str) -> npt.NDArray[np.generic]:
        first = getattr(parts[0], name)
        every = np.zeros((len(places[0]), first.shape[1]), dtype=first.dtype)
        for part, place in zip(parts, places, strict=True):
            every[place] = getattr(part, name)
        return every

    temperature = float(np.mean([part.temperature for part in parts]))
    members = None if parts[0].members is None else joined("members")
    return Answers(joined("probabilities"), temperature, joined("uncalibrated"), members)  # type: ignore[arg-type]
