"""What test images share with images that a classifier learns from: whole files, or groups such as patients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.content import content_hash, image_bytes
from biomedcoop.data.images.sources import ImageInFile, ImageSource

_FLATTERED = "the numbers flatter every method that learns from images."


class Leak(NamedTuple):
    """What test images share with those that were learned from; as text, it names an example.

    Attributes:
        text: a sentence without names, which can be those of patients, for files that are passed on.
        example: the key of an image, or a group.
    """

    text: str
    example: str

    def __str__(self) -> str:
        return f"{self.text} The first is '{self.example}'."


def leaks(data: Dataset, learned: Sequence[int]) -> list[Leak]:
    """Test images that were learned from, and groups on both sides.

    Args:
        learned: positions of the images that are trained or validated on; of groups, every image of their splits counts, as
            another seed would draw others.

    Raises:
        ImageError: a file cannot be read.
    """
    found = []
    tested = data.indices("test").tolist()
    if copied := copies(data, tested, learned):
        count = f"{len(copied)} of {len(tested)}"
        text = f"Test images that are copies of images that were learned from: {count}; {_FLATTERED}"
        found.append(Leak(text, data.keys[copied[0]]))
    return [*found, *group_leaks(data, "test", np.unique(data.splits[list(learned)]).tolist())]


def group_leaks(data: Dataset, split: str, others: Sequence[str]) -> list[Leak]:
    """Groups with images in ``split`` and in one of ``others``, if there are any."""
    if data.groups is None:
        return []
    elsewhere = np.isin(data.splits, others)
    shared = sorted({*data.groups[data.splits == split].tolist()} & {*data.groups[elsewhere].tolist()} - {""})
    if not shared:
        return []
    sides = f"{' or '.join(others)} and in {split}"
    return [Leak(f"Groups (such as patients) with images in {sides}: {len(shared)}; {_FLATTERED}", shared[0])]


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
    if isinstance(image, np.ndarray):
        return image.nbytes
    file = image.file if isinstance(image, ImageInFile) else image
    if not isinstance(file, Path):
        return len(image_bytes(file))
    try:
        return file.stat().st_size
    except OSError:
        return 0


def digest(image: ImageSource) -> str:
    """Half of an image's content hash: enough to know it again, and nothing that the image could be told from."""
    return content_hash(image)[:8].hex()
