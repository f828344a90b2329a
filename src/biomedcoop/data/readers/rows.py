"""What all readers share: one row per image, the names of numbered classes, and the checks that every dataset must pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from biomedcoop.data.dataset import MOST_SUBGROUPS, SPLITS, Dataset
from biomedcoop.data.images.stacks import Facts, Reading, patient_groups, taken_from
from biomedcoop.data.names import check_class_names, clean_class_name, is_text
from biomedcoop.errors import UserError

_LARGEST_LABEL = 100_000  # a larger number is an identifier, not a label


@dataclass(frozen=True)
class Row:
    """One image file as a reader found it; ``split`` is one of SPLITS, ``group`` is empty where there is none."""

    key: str
    path: Path
    label: int
    split: str
    group: str = ""


def unknown_split(word: str, where: object) -> UserError:
    """The error for a word that is not the name of a split."""
    return UserError(f"{where}: unknown split {word!r}; use train, val or test")


def names_by_label(pairs: Iterable[tuple[int, str]], where: object, for_training: bool = True) -> tuple[str, ...]:
    """Class names in label order from the (label, class name) pairs of all images.

    Args:
        for_training: False for test data: labels may have gaps; a missing label 1 is called "class 1".

    Raises:
        UserError: one label with two class names, or labels that are not 0..C-1.
    """
    names: dict[int, str] = {}
    for label, name in dict.fromkeys(pairs):
        name = clean_class_name(name)
        if names.setdefault(label, name) != name:
            first, second = sorted((names[label], name))
            raise UserError(f"{where}: label {label} has two class names, {first!r} and {second!r}; give it one")
    numbered = names_of_numbers(names, where, for_training)
    return tuple(names.get(label, name) for label, name in enumerate(numbered))


def names_of_numbers(labels: Iterable[int], where: object, for_training: bool = True) -> tuple[str, ...]:
    """ "class 0", "class 1", … for number labels without names.

    Args:
        for_training: False for test data, which may lack some classes: labels may have gaps.

    Raises:
        UserError: a label is negative, or the labels of training images are not 0..C-1.
    """
    found = set(labels)
    if for_training:
        check_contiguous(found, where)
    if found and not 0 <= min(found) <= max(found) <= _LARGEST_LABEL:
        wrong = min(found) if min(found) < 0 else max(found)
        raise UserError(f"{where}: {wrong} is not a label; labels are numbers from 0, one for each class")
    return tuple(f"class {label}" for label in range(max(found, default=-1) + 1))


def check_contiguous(labels: Iterable[int], where: object) -> None:
    """Raise unless the distinct ``labels`` are exactly 0..C-1."""
    found = sorted(set(labels))
    if found != list(range(len(found))):
        shown = ", ".join(map(str, found[:8])) + (", …" if len(found) > 8 else "")
        raise UserError(f"{where}: the labels are {shown}; they must be 0 to {len(found) - 1} without gaps")


def check_training_images(data: Dataset, where: object) -> None:
    """Raise unless every class has an image in train."""
    if not data.counts("train").any():
        present = " and ".join(split for split in SPLITS if data.counts(split).any())
        raise UserError(f"{where}: there are {present or 'no'} images but none to train on; add a train split")
    for name, count in zip(data.class_names, data.counts("train"), strict=True):
        if not count:
            raise UserError(f"{where}: class {name!r} has no image in train; add some or remove the class")


def build_dataset(
    name: str,
    class_names: Sequence[str],
    rows: Sequence[Row],
    root: Path,
    where: object,
    notes: Sequence[str] = (),
    for_training: bool = True,
    reading: Reading | None = None,
    listed: bool = True,
) -> Dataset:
    """The dataset of ``rows``, checked: class names, labels, unique keys, and names that reports and tables can hold.

    A file with several frames gives an image for each. Without groups, the patients that DICOM files name become hashed groups.

    Args:
        reading: how files with windows and frames are read.
        listed: the user listed the files one by one, so that none is left out.

    Raises:
        UserError: a check fails; the message names the first fault.
    """
    if not rows:
        raise UserError(f"{where}: it lists no image; add an entry for each image")
    check_class_names(class_names, where, for_training)
    if not is_text(name):
        raise UserError(f"{where}: the dataset's name {name!r} is not UTF-8, so no report can hold it; rename it")
    splits: dict[str, str] = {}
    for row in rows:
        if row.key in splits:
            raise UserError(
                f"{where}: {row.key!r} is {listed_twice(splits[row.key], row.split)}; keep one of the two entries"
            )
        if not is_text(row.key):
            raise UserError(
                f"{where}: the file name {row.key!r} is not UTF-8, so no table can hold it; rename the file"
            )
        splits[row.key] = row.split
    reading = reading or Reading()
    taken, left_out = taken_from([row.path for row in rows], reading, listed=listed)
    rows = [replace(rows[one.position], key=rows[one.position].key + one.frame) for one in taken]
    groups: list[str] | None = [row.group for row in rows]
    if not any(row.group for row in rows):
        groups, about = patient_groups([one.facts for one in taken])
        left_out += about
    subgroups, about = _subgroups([one.facts for one in taken])
    left_out += about
    return Dataset(
        name=name,
        class_names=tuple(class_names),
        images=[one.source for one in taken],
        keys=tuple(row.key for row in rows),
        labels=np.array([row.label for row in rows], dtype=np.int64),
        splits=np.array([row.split for row in rows], dtype=np.str_),
        groups=None if groups is None else np.array(groups, dtype=np.str_),
        subgroups={name: np.array(values, dtype=np.str_) for name, values in subgroups.items()},
        root=root,
        reading=reading,
        notes=(*notes, *left_out),
    )


def _subgroups(facts: Sequence[Facts]) -> tuple[dict[str, list[str]], list[str]]:
    """View and laterality of each image as DICOM files state them, if the images differ in them, and a note."""
    columns = {"view": [one.view for one in facts], "laterality": [one.laterality for one in facts]}
    found = {name: values for name, values in columns.items() if 1 < len(set(values) - {""}) <= MOST_SUBGROUPS}
    notes = [
        f"results are also given by {' and '.join(found)}, as the DICOM files state {'them' if len(found) > 1 else 'it'}"
    ]
    return found, notes if found else []


def listed_twice(first_split: str, second_split: str) -> str:
    """The part of a message that says that an image is listed in ``first_split`` and again in ``second_split``."""
    if first_split == second_split:
        return f"listed twice in {first_split}"
    return f"listed in two splits, {first_split} and {second_split}"
