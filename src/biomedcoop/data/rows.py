"""What all readers share: one row per image, the checks that every dataset must pass, and the words used for splits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from biomedcoop.data.dataset import SPLITS, Dataset
from biomedcoop.data.names import clean_class_name
from biomedcoop.errors import UserError

_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Row:
    """One image as a reader found it; ``split`` is one of SPLITS, ``group`` is empty where there is none."""

    key: str
    path: Path
    label: int
    split: str
    group: str = ""


def split_word(word: str) -> str | None:
    """ "train", "val" or "test" for a word that means it ("Validation", "valid", "TEST"), else None."""
    return _SPLIT_WORDS.get(word.strip().lower())


def unknown_split(word: str, where: object) -> UserError:
    """The error for a split word that is none."""
    return UserError(f"{where}: unknown split {word!r}; use train, val or test")


def names_by_label(pairs: Iterable[tuple[int, str]], where: object) -> tuple[str, ...]:
    """Class names in label order from the (label, class name) pairs of all images.

    Raises:
        UserError: one label with two class names, or labels that are not 0..C-1.
    """
    names: dict[int, str] = {}
    for label, name in set(pairs):
        name = clean_class_name(name)
        if names.setdefault(label, name) != name:
            first, second = sorted((names[label], name))
            raise UserError(f"{where}: label {label} has two class names, {first!r} and {second!r}; give it one")
    check_contiguous(names, where)
    return tuple(names[label] for label in range(len(names)))


def check_contiguous(labels: Iterable[int], where: object) -> None:
    """Raise unless the distinct ``labels`` are exactly 0..C-1."""
    found = sorted(set(labels))
    if found != list(range(len(found))):
        shown = ", ".join(map(str, found[:8])) + (", …" if len(found) > 8 else "")
        raise UserError(f"{where}: the labels are {shown}; they must be 0 to {len(found) - 1} without gaps")


def check_class_names(class_names: Sequence[str], where: object) -> None:
    """Raise unless there are at least two class names, none empty, all different when case and ``_`` are ignored."""
    if len(class_names) < 2:
        found = f"one class ({class_names[0]!r})" if class_names else "no class"
        raise UserError(f"{where}: {found} found, but a classifier needs at least two")
    seen: dict[str, str] = {}
    for name in class_names:
        folded = clean_class_name(name).casefold()
        if not folded:
            raise UserError(f"{where}: a class name is empty; name every class")
        if folded in seen:
            raise UserError(f"{where}: the class names {seen[folded]!r} and {name!r} are the same; rename one")
        seen[folded] = name


def check_training_images(data: Dataset, where: object) -> None:
    """Raise unless every class has an image in train."""
    if not data.counts("train").any():
        present = " and ".join(split for split in SPLITS if data.counts(split).any())
        raise UserError(f"{where}: there are {present or 'no'} images but none to train on; add a train split")
    for name, count in zip(data.class_names, data.counts("train"), strict=True):
        if not count:
            raise UserError(f"{where}: class {name!r} has no image in train; add some or remove the class")


def build_dataset(
    name: str, class_names: Sequence[str], rows: Sequence[Row], root: Path, where: object, notes: Sequence[str] = ()
) -> Dataset:
    """The dataset of ``rows``, checked: class names, labels, unique keys.

    Raises:
        UserError: one clear line about the first thing that is wrong.
    """
    if not rows:
        raise UserError(f"{where}: it lists no image")
    check_class_names(class_names, where)
    splits: dict[str, str] = {}
    for row in rows:
        if row.key in splits:
            raise UserError(
                f"{where}: {row.key!r} is {listed_twice(splits[row.key], row.split)}; keep one of the two entries"
            )
        splits[row.key] = row.split
    groups = [row.group for row in rows]
    return Dataset(
        name=name,
        class_names=tuple(class_names),
        images=[row.path for row in rows],
        keys=tuple(splits),
        labels=np.array([row.label for row in rows], dtype=np.int64),
        splits=np.array([row.split for row in rows], dtype=np.str_),
        groups=np.array(groups, dtype=np.str_) if any(groups) else None,
        root=root,
        notes=tuple(notes),
    )


def listed_twice(first_split: str, second_split: str) -> str:
    """How to say that an image is listed in ``first_split`` and again in ``second_split``."""
    if first_split == second_split:
        return f"listed twice in {first_split}"
    return f"one image file in two splits, {first_split} and {second_split}"
