"""Leaks between test images and training images (copied files, or common groups such as patients), and copies with two labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from biomedcoop.data import archives
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.content import content_hash, image_bytes
from biomedcoop.data.images.sources import ImageInFile, ImageSource
from biomedcoop.errors import ImageError, UserError

_CONSEQUENCE = "methods that learn from images look better than they are."


class Leak(NamedTuple):
    """A leak between test images and training images; ``str`` adds an example to the sentence.

    Attributes:
        text: a sentence that names no image or group, so that it can go into files that are shared.
        example: key of an image, or a group.
    """

    text: str
    example: str

    def __str__(self) -> str:
        return f"{self.text} The first is '{self.example}'."


def leaks(data: Dataset, learned: Sequence[int]) -> list[Leak]:
    """Leaks of a dataset: test images that are copies of training images, and groups on both sides of the split.

    Args:
        learned: positions of the training and validation images of a run. For groups, every image of their splits counts,
            because another seed would draw other images.

    Raises:
        ImageError: a file cannot be read.
    """
    found = []
    tested = data.indices("test").tolist()
    if copied := copies(data, tested, learned):
        count = f"{len(copied)} of {len(tested)}"
        text = f"Test images that are copies of images that were learned from: {count}; {_CONSEQUENCE}"
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
    return [Leak(f"Groups (such as patients) with images in {sides}: {len(shared)}; {_CONSEQUENCE}", shared[0])]


def copies(data: Dataset, tested: Sequence[int], learned: Sequence[int]) -> list[int]:
    """Positions in ``tested`` of images with the same bytes as an image in ``learned``.

    Only images of equal size are read, so that a large test split costs little.
    """
    sizes = {i: _size(data.images[i]) for i in {*tested, *learned}}
    shared = {sizes[i] for i in tested} & {sizes[i] for i in learned} - {0}

    def digest(i: int) -> bytes:
        return content_hash(data.images[i], data.keys[i])

    known = {digest(i) for i in learned if sizes[i] in shared}
    return [i for i in tested if sizes[i] in shared and digest(i) in known]


def contradicting(data: Dataset) -> list[int]:
    """Positions of images with the same bytes as an image of another class, in file order."""
    copied = [positions for positions in sets_of_copies(data) if len(set(data.labels[positions].tolist())) > 1]
    return sorted(i for positions in copied for i in positions)


def sets_of_copies(data: Dataset) -> list[list[int]]:
    """Positions of images with the same bytes, a list for each content that several images have.

    Only images of equal size are read. A file that cannot be read is left out.
    """
    by_size: defaultdict[int, list[int]] = defaultdict(list)
    for i, image in enumerate(data.images):
        by_size[_size(image)].append(i)
    by_content: defaultdict[bytes, list[int]] = defaultdict(list)
    for size, positions in by_size.items():
        if size and len(positions) > 1:
            for i in positions:
                with suppress(ImageError):  # the reader of the images reports it
                    by_content[content_hash(data.images[i], data.keys[i])].append(i)
    return [positions for positions in by_content.values() if len(positions) > 1]


def _size(image: ImageSource) -> int:
    """Size of an image in bytes; 0 for a missing file, which the image reader reports."""
    if isinstance(image, np.ndarray):
        return image.nbytes
    file = image.file if isinstance(image, ImageInFile) else image
    if not isinstance(file, Path):
        return len(image_bytes(file))
    try:
        return archives.stamp(file).size
    except (OSError, UserError):
        return 0


def digest(image: ImageSource) -> str:
    """First 8 bytes of an image's content hash as hexadecimal text: they identify the image but do not reveal it."""
    return content_hash(image)[:8].hex()
