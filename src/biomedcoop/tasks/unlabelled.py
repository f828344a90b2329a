"""Images without labels, from which some methods learn beside the labelled ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.sources import ImageSource
from biomedcoop.data.images.stacks import Reading
from biomedcoop.data.readers.listing import list_images
from biomedcoop.data.sampling.few_shot import Draw
from biomedcoop.data.sampling.leakage import copies
from biomedcoop.errors import UserError
from biomedcoop.methods import Method


class Unlabelled(NamedTuple):
    """Images without labels.

    Attributes:
        images, names: the images, and their names in messages.
        notes: how they were read, and how many were left out.
    """

    images: Sequence[ImageSource]
    names: Sequence[str]
    notes: tuple[str, ...]


def unlabelled_of(method: Method, source: str | None, reading: Reading | None = None) -> Unlabelled | None:
    """The images of the option ``unlabelled``, read as for prediction; None for a method that uses none.

    Raises:
        UserError: the method needs a source, or the source holds no image.
    """
    if not method.abilities.uses_unlabelled:
        return None
    if source is None:
        raise UserError(f"{method.name} learns from unlabelled images too; name them with --unlabelled FOLDER")
    found = list_images([source], labels=False, reading=reading)
    if not found.images:
        raise UserError(f"{source} holds no image; give --unlabelled a folder or table with images")
    return Unlabelled(found.images, found.keys, tuple(found.notes))


def training_images(data: Dataset) -> Unlabelled:
    """All training images of a dataset, without their labels; a plan leaves out those that it draws."""
    train = data.indices("train").tolist()
    return Unlabelled([data.images[i] for i in train], [data.keys[i] for i in train], ())


def without_copies(unlabelled: Unlabelled, data: Dataset, used: Draw) -> Unlabelled:
    """The images that are no copy of a test image of ``data`` or of its images at ``used``, with a note on those left out.

    Raises:
        UserError: no image is left.
        ImageError: an image cannot be read.
    """
    n, known = len(unlabelled.images), np.union1d(used, data.indices("test"))
    keys = [f"unlabelled {i}" for i in range(n)] + [f"known {i}" for i in range(len(known))]
    images = [*unlabelled.images, *(data.images[i] for i in known.tolist())]
    nothing = np.zeros(len(keys), dtype=np.int64)
    together = Dataset("unlabelled", ("any",), images, tuple(keys), nothing, np.full(len(keys), "train"))
    copied = set(copies(together, range(n), range(n, len(keys))))
    if not copied:
        return unlabelled
    left = [i for i in range(n) if i not in copied]
    if not left:
        raise UserError(
            f"all {n} unlabelled images are copies of training or test images; give --unlabelled other images"
        )
    note = f"{len(copied)} of {n} unlabelled images are copies of training or test images and are left out."
    kept, names = [unlabelled.images[i] for i in left], [unlabelled.names[i] for i in left]
    return Unlabelled(kept, names, (*unlabelled.notes, note))
