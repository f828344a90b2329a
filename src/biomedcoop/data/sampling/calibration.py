"""Calibration images for prediction sets: set aside from the training images, at most one image of a group."""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]


def set_aside(
    labels: Positions, related: Positions, needed: int, seed: int, by_class: bool = False
) -> tuple[Positions, Positions]:
    """Choose calibration images among training images: a third of each class, or up to a half where the promise needs more.

    Of a set of related images (such as those of a patient) one image is chosen, and the others leave the training too, so that
    calibration images are as new to the classifier, and to each other, as test images. Every class keeps an image to learn from.
    Where even that gives too few, no image is set aside: every set is all classes then, with any number of them.

    Args:
        labels: int64 [N], classes of the training images.
        related: int64 [N], set of related images of each image.
        needed: calibration images that the promise needs, of each class with ``by_class``, else of all classes together.
        seed: random seed of a local generator.
        by_class: each class has its own promise.

    Returns:
        Positions of the images that stay in training, and of the calibration images; sorted.

    Example:
        >>> kept, calibration = set_aside(np.repeat([0, 1], 16), np.arange(32), 9, seed=1)
        >>> len(kept), len(calibration)
        (22, 10)
    """
    generator = random.Random(f"calibration {seed}")
    classes = np.unique(labels).tolist()
    left = {c: set(related[labels == c].tolist()) for c in classes}  # sets that a class can learn from
    share = needed if by_class else -(-needed // len(classes))
    wanted = {c: max(len(sets) // 3, min(len(sets) // 2, share)) for c, sets in left.items()}
    chosen: list[int] = []
    for c in classes:
        sets = sorted(left[c])
        generator.shuffle(sets)
        for one in sets:
            taken = sum(labels[i] == c for i in chosen)
            if taken == wanted[c] or any(rest == {one} for rest in left.values()):
                continue
            chosen.append(generator.choice(np.flatnonzero((related == one) & (labels == c)).tolist()))
            for other in left.values():
                other.discard(one)
    counts = [sum(labels[i] == c for i in chosen) for c in classes]
    if (max(counts) if by_class else len(chosen)) < needed:
        return np.arange(len(labels)), np.zeros(0, dtype=np.int64)
    kept = ~np.isin(related, related[chosen])
    return np.flatnonzero(kept), np.sort(np.array(chosen, dtype=np.int64))


def one_of_each_set(related: Positions) -> Positions:
    """Positions of the first image of each set of related images, sorted.

    Example:
        >>> one_of_each_set(np.array([3, 3, 1, 0, 1])).tolist()
        [0, 2, 3]
    """
    return np.sort(np.unique(related, return_index=True)[1]).astype(np.int64)
