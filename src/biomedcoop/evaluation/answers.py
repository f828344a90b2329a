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
        calibration: number of images that calibrate the sets, see :meth:`PredictionSets.images`; None for none.
    """

    probabilities: npt.NDArray[np.float32]
    temperature: float
    uncalibrated: npt.NDArray[np.float32]
    members: npt.NDArray[np.bool_] | None
    calibration: int | None

    @classmethod
    def of(cls, classifier: Classifier, features: npt.NDArray[np.float32]) -> Answers:
        """The answers of a classifier about raw features [N, E]."""
        p = classifier.probabilities(features)
        plain = p if classifier.temperature == 1 else replace(classifier, temperature=1.0).probabilities(features)
        if classifier.sets is None:
            return cls(p, classifier.temperature, plain, None, None)
        calibration = classifier.sets.images(len(classifier.class_names))
        return cls(p, classifier.temperature, plain, classifier.members(features, p), calibration)


def put_together(parts: Sequence[Answers], places: Sequence[npt.NDArray[np.bool_]]) -> Answers:
    """Answers about all images, from those about parts of them; their mean temperature and least calibration stand for all.

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
    calibration = min((part.calibration for part in parts if part.calibration is not None), default=None)
    return Answers(joined("probabilities"), temperature, joined("uncalibrated"), members, calibration)  # type: ignore[arg-type]
