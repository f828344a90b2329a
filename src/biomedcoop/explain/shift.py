"""How far training moved the embedding of each class, and in which direction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from biomedcoop.classifier.domain import unit

Floats = npt.NDArray[np.float64]

STILL = 0.01
"""Largest angle, in degrees, of a class that counts as not moved; rounding alone gives less."""


@dataclass(frozen=True)
class ClassShift:
    """The shift of one class embedding from that of its template.

    Attributes:
        class_name: the class.
        cosine: cosine of the learned embedding and the template's; 1 if the class did not move.
        angle: the angle between them, degrees.
        towards: the other class whose template embedding the class came closest to; None if it moved away from all of them.
        gain: change of its cosine with the template embedding of ``towards``, or the largest change if that is None.
        mean_before, mean_after: cosine of the template's and of the learned embedding with the mean of the class's sentences, which
            the loss term SCCM of BiomedCoOp draws it to.
    """

    class_name: str
    cosine: float
    angle: float
    towards: str | None
    gain: float
    mean_before: float
    mean_after: float


def class_shifts(
    class_names: Sequence[str], before: Floats, after: Floats, means: Floats
) -> tuple[tuple[ClassShift, ...], float]:
    """The shift of each class, and the share of the squared shifts that is the same for all classes.

    A shift that all classes share raises all logits of an image alike, so it hardly changes a decision.

    Args:
        before, after: unit-norm embeddings [C, E] of the template and of the classifier.
        means: unit-norm mean [C, E] of each class's sentences.

    Example:
        >>> before, after = np.eye(3)[:2], unit(np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]))
        >>> shifts, common = class_shifts(["cyst", "stone"], before, after, after)
        >>> round(shifts[0].angle), round(shifts[0].mean_after, 3), round(common, 2)
        (45, 1.0, 0.93)
    """
    cosines = (before * after).sum(1).clip(-1, 1)
    # from the chord, which is exact for small angles
    angles = np.degrees(2 * np.arcsin((np.linalg.norm(after - before, axis=1) / 2).clip(0, 1)))
    gains = (after - before) @ before.T  # [C, C]
    np.fill_diagonal(gains, -np.inf)
    nearest = gains.argmax(1)
    to_mean = (before * means).sum(1), (after * means).sum(1)
    shifts = tuple(
        ClassShift(
            name,
            float(cosines[c]),
            float(angles[c]),
            class_names[nearest[c]] if gains[c, nearest[c]] > 0 else None,
            float(gains[c, nearest[c]]),
            float(to_mean[0][c]),
            float(to_mean[1][c]),
        )
        for c, name in enumerate(class_names)
    )
    moved = after - before
    total = float((moved**2).sum(1).mean())
    return shifts, float((moved.mean(0) ** 2).sum()) / total if total else 0.0


def still(shifts: Iterable[ClassShift]) -> bool:
    """Whether no class moved."""
    return all(shift.angle < STILL for shift in shifts)


def similarities(embeddings: Floats) -> Floats:
    """Cosines [C, C] of class embeddings [C, E]."""
    rows = unit(embeddings)
    cosines: Floats = rows @ rows.T
    return cosines
