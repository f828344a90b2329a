"""Folds of a cross-validation: stratified by class, related images together."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import numpy.typing as npt

from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.content import content_hash
from biomedcoop.errors import UserError

FEW_IMAGES = 34
"""Number of images of the smallest class below which a drawn test split would hold fewer than ten of them."""


def too_few_to_split(data: Dataset) -> bool:
    """Whether the data have no test split and too few images to draw one."""
    return not data.counts("test").any() and bool(0 < data.counts("train").min() < FEW_IMAGES)


def few_images_note(data: Dataset) -> str:
    """Beginning of a note on data that :func:`too_few_to_split` names."""
    counts = data.counts("train")
    smallest = int(counts.argmin())
    count = int(counts[smallest])
    return (
        f"There is no test split, and class {data.class_names[smallest]!r} has only {count} "
        f"image{'s' * (count != 1)}, too few to set some aside"
    )


def related_images(data: Dataset) -> npt.NDArray[np.int64]:
    """Number the sets of related images: images of one group, and images with the same bytes, belong to one set.

    Returns:
        int64 [N], the set of each image.

    Raises:
        ImageError: a file cannot be read.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(data)
    names: list[list[object]] = [[content_hash(image, key) for image, key in zip(data.images, data.keys, strict=True)]]
    if data.groups is not None:
        names.append([group or ("no group", i) for i, group in enumerate(data.groups.tolist())])
    edges = []  # each image is linked to the first image of the same name
    for listed in names:
        first: dict[object, int] = {}
        edges += [(i, first.setdefault(name, i)) for i, name in enumerate(listed)]
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
