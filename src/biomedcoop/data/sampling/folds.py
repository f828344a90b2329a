"""Folds of a cross-validation, stratified by class, with images that belong together in one fold."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from biomedcoop.data.dataset import Dataset


def units_of(data: Dataset, drawn: npt.NDArray[np.int64]) -> list[Hashable]:
    """The unit of each drawn image: its group, or the image itself, so that an image drawn twice is one unit."""
    if data.groups is None:
        return list(drawn.tolist())
    return [str(data.groups[i]) or i for i in drawn.tolist()]


def draw_folds(labels: npt.NDArray[np.int64], units: Sequence[Hashable], most: int, seed: int) -> npt.NDArray[np.int64]:
    """Divide images into folds such that every class has about the same share of each fold.

    Units are visited in random order, the largest first. Each goes to the fold that has the smallest share of its classes, of
    several to the smallest fold. Without groups the images of a class in two folds differ by at most one.

    Args:
        labels: int64 [N].
        units: for each image, the unit that stays together (see :func:`units_of`).
        most: maximum number of folds; a class with fewer units lowers it.
        seed: random seed of a local generator; the global generator does not change.

    Returns:
        Fold of each image, int64 [N], from 0 on. All are 0 if there are no two folds: a class then has all its images in one
        unit, or its units cannot be divided.

    Example:
        >>> import numpy as np
        >>> draw_folds(np.array([0, 0, 0, 0, 1, 1]), ["a", "a", "b", "c", "d", "e"], 5, seed=1).tolist()
        [0, 0, 1, 1, 0, 1]
    """
    members: dict[Hashable, list[int]] = {}
    for position, unit in enumerate(units):
        members.setdefault(unit, []).append(position)
    order = list(members.values())
    random.Random(f"folds {seed}").shuffle(order)
    order.sort(key=len, reverse=True)
    contents = [Counter(labels[positions].tolist()) for positions in order]
    units_in = Counter(label for content in contents for label in content)
    total = Counter(labels.tolist())
    taken: list[Counter[int]] = [Counter() for _ in range(min([most, *units_in.values()]))]
    folds = np.zeros(len(labels), dtype=np.int64)
    for positions, content in zip(order, contents, strict=True):
        shares = [sum(n * own[label] / total[label] ** 2 for label, n in content.items()) for own in taken]
        fold = min(range(len(taken)), key=lambda k: (shares[k], taken[k].total(), k))
        folds[positions] = fold
        taken[fold].update(content)
    divided = all(sum(own[label] > 0 for own in taken) > 1 for label in total)
    return folds if divided else np.zeros_like(folds)
