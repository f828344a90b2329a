"""What test images share with images that a classifier learns from: whole files, or groups such as patients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from biomedcoop.data.dataset import Dataset, ImageSource
from biomedcoop.data.images import content_hash

_FLATTERED = "the numbers flatter every method that learns from images."


def leaks(data: Dataset, learned: Sequence[int]) -> list[str]:
    """A sentence about test images that were learned from, and one about groups on both sides.

    Args:
        learned: positions of the images that are trained or validated on; of groups, every image of their splits counts, as
            another seed would draw others.

    Raises:
        ImageError: a file cannot be read.
    """
    found = []
    tested = data.indices("test").tolist()
    if copied := copies(data, tested, learned):
        found.append(
            f"Test images that are copies of images that were learned from: {len(copied)} of {len(tested)}, e.g. "
            f"{data.keys[copied[0]]}; {_FLATTERED}"
        )
    return [*found, *group_leaks(data, "test", np.unique(data.splits[list(learned)]).tolist())]


def group_leaks(data: Dataset, split: str, others: Sequence[str]) -> list[str]:
    """A sentence about groups with images in ``split`` and in one of ``others``, if there are any."""
    if data.groups is None:
        return []
    elsewhere = np.isin(data.splits, others)
    shared = sorted({*data.groups[data.splits == split].tolist()} & {*data.groups[elsewhere].tolist()} - {""})
    if not shared:
        return []
    return [
        f"Groups (such as patients) with images in {' or '.join(others)} and in {split}: {len(shared)}, e.g. "
        f"'{shared[0]}'; {_FLATTERED}"
    ]


def copies(data: Dataset, tested: Sequence[int], learned: Sequence[int]) -> list[int]:
    """Positions among ``tested`` of the images whose content is, byte for byte, that of one among ``learned``.

    Only images of equal size are read, so that a large test split costs little.
    """
    sizes = {i: _size(data.images[i]) for i in {*tested, *learned}}
    shared = {sizes[i] for i in tested} & {sizes[i] for i in learned} - {0}

    def digest(i: int) -> bytes:
        return content_hash(data.images[i], data.keys[i])

    known = {digest(i) for i in learned if sizes[i] in shared}
    return [i for i in tested if sizes[i] in shared and digest(i) in known]


def _size(image: ImageSource) -> int:
    """Bytes of an image; 0 for a file that is not there, of which the reader will tell."""
    if not isinstance(image, Path):
        return image.nbytes
    try:
        return image.stat().st_size
    except OSError:
        return 0
