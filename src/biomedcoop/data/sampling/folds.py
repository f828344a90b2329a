"""Folds of a cross-validation: stratified by class, related images together."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from biomedcoop.data.dataset import Dataset
from biomedcoop.data.sampling.leakage import sets_of_copies
from biomedcoop.errors import UserError

FOLDS = 5
"""Number of folds; a class with fewer images or groups lowers it."""

NO_TEST = "bc.fit, in Python, trains without a test"

REPEATS = 3
"""Minimum number of divisions of a cross-validation."""


@dataclass(frozen=True)
class Divisions:
    """Divisions of images into folds.

    Attributes:
        seeds: one random seed for each division.
        folds: fold of each of the N images, int64 [N], for each division.
    """

    seeds: tuple[int, ...]
    folds: tuple[npt.NDArray[np.int64], ...]

    @property
    def number(self) -> int:
        """Number of folds."""
        return int(self.folds[0].max()) + 1

    def __iter__(self) -> Iterator[tuple[int, int, npt.NDArray[np.bool_]]]:
        """The position of a division, its seed, and the tested images bool [N], for each fold of each division."""
        for position, (seed, fold_of) in enumerate(zip(self.seeds, self.folds, strict=True)):
            for fold in range(fold_of.max() + 1):
                yield position, seed, fold_of == fold

    def note(self, shots: int | str, realistic: bool = False) -> str:
        """The note on a cross-validation, issued before the work.

        Args:
            shots: training images per class, or "all".
            realistic: True if they are drawn whatever their class, so many of each on average.
        """
        images = "all images" if shots == "all" else f"{shots} image{'s' * (shots != 1)} of each class"
        images += " on average," * (realistic and shots != "all")
        return (
            f"{self.number}-fold cross-validation, with {len(self.seeds)} divisions into folds "
            f"(seeds {', '.join(map(str, self.seeds))}), tests each image with classifiers trained on {images} of the other folds. "
            f"The saved model is trained on images of all folds, with seed {self.seeds[0]}."
        )


def divide(data: Dataset, seeds: Sequence[int]) -> Divisions | None:
    """Divisions of the training images for a cross-validation, if there is no test split.

    Args:
        seeds: seeds of the divisions; fewer than :data:`REPEATS` are filled up with the numbers after the largest.

    Raises:
        UserError: the images cannot be divided.
    """
    if data.counts("test").any():
        return None
    part = data.part("train")
    related = related_images(part)
    if reason := why_undivided(part, related):
        raise UserError(
            f"{reason}, so it cannot be both trained on and tested; add images of it, remove the class, or give a test split; "
            f"{NO_TEST}"
        )
    more = range(1, REPEATS - len(seeds) + 1)
    seeds = (*seeds, *((max(seeds) + k) % 2**63 for k in more))
    return Divisions(seeds, tuple(draw_folds(part.labels, related, FOLDS, seed) for seed in seeds))


def why_undivided(data: Dataset, related: npt.NDArray[np.int64]) -> str:
    """Why the images of a class cannot be in two folds, with the class's name; an empty text if those of every class can."""
    if len(np.unique(data.labels)) == len(data) > 1:
        return "every class has one training image"
    for label, name in enumerate(data.class_names):
        sets = related[data.labels == label]
        if len(sets) == 1:
            return f"class {name!r} has one training image"
        if len(sets) and (sets == sets[0]).all():
            return f"class {name!r} has only training images of one group (such as a patient) or copies of one image"
    return ""


def related_images(data: Dataset) -> npt.NDArray[np.int64]:
    """Number the sets of related images: images of one group, and images with the same bytes, belong to one set.

    Returns:
        int64 [N], the set of each image.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(data)
    edges = [(i, i) for i in range(n)] + [(i, copied[0]) for copied in sets_of_copies(data) for i in copied]
    first: dict[str, int] = {}
    groups = [] if data.groups is None else data.groups.tolist()
    edges += [(i, first.setdefault(group, i)) for i, group in enumerate(groups) if group]
    rows, columns = np.array(edges).T
    graph = coo_matrix((np.ones(len(edges)), (rows, columns)), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def draw_folds(
    labels: npt.NDArray[np.int64], related: npt.NDArray[np.int64], most: int, seed: int
) -> npt.NDArray[np.int64]:
    """Divide images into folds of about equal size and equal shares of the classes; every class has images outside each fold.

    Sets of related images are visited in random order, the largest first. Each goes to the fold with the smallest share of the
    set's classes, of several such folds to the smallest. If no images are related, the images of a class in two folds differ by at
    most one.

    Args:
        labels: int64 [N].
        related: int64 [N], set of related images of each image; a set stays together.
        most: number of folds; fewer are drawn if a class has fewer sets.
        seed: random seed of a local generator; the global generator does not change.

    Returns:
        int64 [N], the fold of each image, 0..folds-1.

    Raises:
        UserError: the images of a class are all related, so they cannot be both trained on and tested.

    Example:
        >>> import numpy as np
        >>> draw_folds(np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 1, 2, 3, 4]), 5, seed=1).tolist()
        [0, 0, 1, 1, 0, 1]
    """
    members: dict[int, list[int]] = {}
    for position, number in enumerate(related.tolist()):
        members.setdefault(number, []).append(position)
    sets = list(members.values())
    random.Random(f"folds {seed}").shuffle(sets)
    sets.sort(key=len, reverse=True)
    contents = [Counter(labels[positions].tolist()) for positions in sets]
    total = Counter(labels.tolist())
    sets_in = Counter(label for content in contents for label in content)
    taken: list[Counter[int]] = [Counter() for _ in range(min(most, *sets_in.values()))]
    folds = np.zeros(len(labels), dtype=np.int64)
    for positions, content in zip(sets, contents, strict=True):
        shares = [sum(n * own[label] / total[label] ** 2 for label, n in content.items()) for own in taken]
        fold = min(range(len(taken)), key=lambda k: (shares[k], taken[k].total(), k))
        folds[positions] = fold
        taken[fold].update(content)
    if any(sum(own[label] > 0 for own in taken) < 2 for label in total):
        raise UserError(
            "the images cannot be divided for a test: all images of a class are copies of one image or come from one group (such "
            "as a patient); add images of other groups, or give a test split"
        )
    return folds
