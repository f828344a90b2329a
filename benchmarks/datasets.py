"""The collected datasets, by whether pretraining of ``mini`` had images of their classes, and what belongs to them."""

from __future__ import annotations

import csv
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from biomedcoop.data.catalogue import find
from biomedcoop.data.dataset import Dataset
from biomedcoop.prompts import sentences_for

GROUPS = {
    "seen": ("btmri", "kneexray", "lungcolon", "pneumoniamnist", "mednist", "bccd_cells"),
    "unseen": ("busi", "ham10000", "retina", "covid_radiography", "covid_cxr3"),
}
"""Never averaged together. Seen: labelled images of at least some of the dataset's classes were in pretraining. Unseen: no image of
the dataset was. Still, the covid sets share the class name 'normal lungs' with pneumoniamnist, chest X-rays too."""
NAMES = tuple(name for names in GROUPS.values() for name in names)
WITHOUT_IMAGES = (("bccd_cells", "white blood cell"), ("bccd_cells", "platelets"))
"""Classes of seen datasets that pretraining had no image of."""

SEEDS = (1, 2, 3)
"""A seed draws the images and the order of the batches."""


def complete_groups(datasets: Iterable[str]) -> list[str]:
    """The groups of which every dataset is there; a mean over a part of one would be read as the group's."""
    there = set(datasets)
    return [group for group, names in GROUPS.items() if set(names) <= there]


def related(data: Dataset) -> npt.NDArray[np.str_]:
    """Group of each image (patient, lesion, field of view, near-duplicates) by the column ``group`` of the folder's manifest.csv.

    An image without one, or of a dataset without the file, is a group of its own.
    """
    found: dict[str, str] = {}
    path = None if data.root is None else data.root / "manifest.csv"
    if path is not None and path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            found = {row["file"]: row.get("group") or "" for row in csv.DictReader(file)}
    return np.array([f"group {found[key]}" if found.get(key) else f"image {key}" for key in data.keys])


def library_sentences(data: Dataset) -> list[list[str]]:
    """Sentences of each class in the library.

    Raises:
        UserError: the library has no sentences for the classes.
    """
    entry = find(data.name, data.class_names)
    found = sentences_for(data.class_names, entry.name if entry else data.name, "library")
    return [list(sentences) for sentences in found.by_class]


def unused_sentences(data: Dataset) -> list[list[str]]:
    """Sentences of each class that pretraining has not used; it takes those with an even index. Errors: as above."""
    return [sentences[1::2] for sentences in library_sentences(data)]
