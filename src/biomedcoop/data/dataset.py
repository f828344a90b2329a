"""The one value that every reader returns: images, integer labels, class names, split, optional group and subgroups."""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from biomedcoop.data.images.sources import ImageSource, as_source
from biomedcoop.data.images.stacks import Reading
from biomedcoop.data.names import check_class_names, list_names
from biomedcoop.data.tables.missing import is_missing
from biomedcoop.errors import UserError
from biomedcoop.notebook import fragment

SPLITS = ("train", "val", "test")

MOST_SUBGROUPS = 12
"""Largest number of different values of a column that divides the images into subgroups."""


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Labelled images of one classification task. The constructor checks all attributes, as the readers do.

    It also accepts lists instead of arrays and tuples, and text instead of paths.

    Attributes:
        name: short name, e.g. that of the folder, or of the table without ending; it is looked up in the catalogue of benchmark
            datasets.
        class_names: C distinct names; label ``c`` means ``class_names[c]``. One class is enough for testing.
        images: N images: paths, files' bytes, Pillow images, arrays [H, W] or [H, W, 3], or one array [N, H, W] or [N, H, W, 3].
        keys: N unique names, relative to ``root`` ("train/cyst/1.png") or as a table gives them, or "train[7]" for arrays; written
            to JSON.
        labels: int64 [N], values 0..C-1.
        splits: str [N], each "train", "val" or "test". File order within a split is kept (few-shot sampling needs it).
        groups: str [N] (patient, lesion, …; images of one group belong on one side of a split), or None. An empty string,
            or a missing value, means that the image belongs to no group.
        subgroups: column -> str [N], for results by subgroup: {"sex": …, "age": ["40–59", …]}. A column has at most 12 different
            values; a missing value is an empty string. The values may stand in reports: give bands, not single ages.
        root: folder that relative ``keys`` start from, or None for arrays.
        simulated: True if a program drew the images.
        reading: how files with windows and frames are read; None, whatever is given, where there are none.
        test_drawn: True if the source gives no test split, so that a share of its training images was drawn as one.
        notes: notes for the user on how the data were read, a sentence each.

    Raises:
        UserError: an attribute has the wrong type or length, or holds an invalid value.
    """

    name: str
    class_names: tuple[str, ...]
    images: Sequence[ImageSource] | npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    keys: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    splits: npt.NDArray[np.str_]
    groups: npt.NDArray[np.str_] | None = None
    subgroups: Mapping[str, npt.NDArray[np.str_]] = field(default_factory=dict)
    root: Path | None = None
    simulated: bool = False
    test_drawn: bool = False
    reading: Reading | None = None
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise UserError(f"the name of a dataset is text, not {_kind(self.name)}")
        where = f"dataset {self.name!r}"
        names = _texts(self.class_names, f"{where}: class_names")
        checked: dict[str, Any] = {
            "class_names": check_class_names(names, where, for_training=False),
            "labels": _labels(self.labels, names, where),
            "images": _images(self.images, where),
            "keys": _texts(self.keys, f"{where}: keys"),
            "splits": _splits(self.splits, where),
            "groups": None if self.groups is None else _groups(self.groups, where),
            "subgroups": _subgroups(self.subgroups, where),
            "notes": _texts(self.notes, f"{where}: notes"),
        }
        checked["images"], checked["reading"] = _read_with(self.reading, checked["images"], where)
        n = len(checked["labels"])
        for attribute in ("images", "keys", "splits", "groups"):
            if (value := checked[attribute]) is not None and len(value) != n:
                raise UserError(f"{where}: {len(value)} {attribute} for {n} labels; give one for each image")
        for column, values in checked["subgroups"].items():
            if len(values) != n:
                raise UserError(f"{where}: {len(values)} values of {column} for {n} labels; give one for each image")
        keys = checked["keys"]
        if len(set(keys)) < n:
            repeated = next(key for key, count in Counter(keys).items() if count > 1)
            raise UserError(f"{where}: several images have the key {repeated!r}; give every image its own key")
        if self.root is not None:
            checked["root"] = _path(self.root, f"{where}: root")
        self._set(checked)

    def __repr__(self) -> str:
        splits = [f"{split} {count}" for split in SPLITS if (count := int((self.splits == split).sum()))]
        groups = [] if self.groups is None else [f"{len(set(self.groups) - {''})} groups"]
        facts = [repr(self.name), f"{len(self)} images" + (f" ({', '.join(splits)})" if splits else ""), *groups]
        return f"Dataset({', '.join(facts + ['simulated'] * self.simulated)}, {list_names(self.class_names)})"

    def _repr_html_(self) -> str:
        """Images of each class in each split, and the notes, for a notebook."""
        counts = {split: self.counts(split) for split in SPLITS if (self.splits == split).any()}
        rows = [[name, *(str(n[label]) for n in counts.values())] for label, name in enumerate(self.class_names)]
        rows.append(["all", *(str(n.sum()) for n in counts.values())])
        groups = [] if self.groups is None else [f"{len(set(self.groups) - {''})} groups"]
        facts = [f"{len(self)} images", *groups, *["simulated"] * self.simulated]
        return fragment(f"{self.name}: {', '.join(facts)}", ["class", *counts], rows, self.notes)

    def __len__(self) -> int:
        return len(self.labels)

    def indices(self, split: str) -> npt.NDArray[np.int64]:
        """Positions of the images of ``split`` in file order, int64 [N].

        Raises:
            UserError: ``split`` is not train, val or test.
        """
        if split not in SPLITS:
            raise UserError(f"no split {split!r}; choose train, val or test")
        return np.flatnonzero(self.splits == split).astype(np.int64)

    def select(self, indices: npt.NDArray[np.int64] | npt.NDArray[np.bool_] | Sequence[int]) -> Dataset:
        """The same task with only the images at ``indices``, in that order, or the images of a mask; repeats are allowed.

        Raises:
            UserError: an index is no whole number, or there is no such image.
        """
        index = np.asarray(indices)
        if index.size and (index.dtype.kind not in "biu" or not -len(self) <= index.min() <= index.max() < len(self)):
            raise UserError(
                f"indices={indices!r} must be whole numbers below {len(self)}, the number of images, or a mask"
            )
        index = np.arange(len(self))[index] if index.dtype == np.bool_ else index.astype(np.int64)
        selected = copy.copy(self)  # checked already, and keys may repeat here
        selected._set(
            {
                "images": self.images[index]
                if isinstance(self.images, np.ndarray)
                else [self.images[i] for i in index],
                "keys": tuple(self.keys[i] for i in index),
                "labels": self.labels[index],
                "splits": self.splits[index],
                "groups": None if self.groups is None else self.groups[index],
                "subgroups": {column: values[index] for column, values in self.subgroups.items()},
            }
        )
        return selected

    def part(self, split: str) -> Dataset:
        """Only the images of ``split``."""
        return self.select(self.indices(split))

    def counts(self, split: str) -> npt.NDArray[np.int64]:
        """Images per class in ``split``: int64 [C].

        Raises:
            UserError: see :meth:`indices`.
        """
        return np.bincount(self.labels[self.indices(split)], minlength=len(self.class_names)).astype(np.int64)

    def _set(self, attributes: dict[str, Any]) -> None:
        for attribute, value in attributes.items():
            object.__setattr__(self, attribute, value)


def _labels(given: Any, class_names: Sequence[str], where: str) -> npt.NDArray[np.int64]:
    labels = _values(given, f"{where}: labels")
    c = len(class_names)
    if labels.ndim != 1:
        raise UserError(f"{where}: labels have the shape {list(labels.shape)}; give one number for each image")
    if labels.dtype.kind not in "iu" and labels.size:
        raise UserError(
            f"{where}: labels are {labels.dtype}; give whole numbers from 0 to {c - 1}, the places in class_names"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= c)) if labels.size else labels
    if len(wrong):
        value, count = labels[wrong[0]], int((labels == labels[wrong[0]]).sum())
        if value == -1:
            raise UserError(
                f"{where}: {count} of {len(labels)} labels are -1, which often means unlabelled; leave those images out"
            )
        raise UserError(
            f"{where}: label {value} (image {wrong[0]}) is not one of the {c} classes; labels run from 0 to {c - 1}"
        )
    return labels.astype(np.int64)  # a copy, so that the user's later changes do not reach the dataset


def _images(given: Any, where: str) -> list[Any] | npt.NDArray[Any]:
    if isinstance(given, np.ndarray) and given.dtype.kind not in "UO":
        if given.ndim not in (3, 4):
            raise UserError(
                f"{where}: images have the shape {list(given.shape)}; give [N, H, W] or [N, H, W, 3], or a list of files"
            )
        if given.ndim == 3 and given.shape[-1] == 3:  # elsewhere such an array is one colour image
            raise UserError(
                f"{where}: images have the shape {list(given.shape)}, which is one image with 3 channels; give grey images of "
                "width 3 as a list of arrays [H, W]"
            )
        if given.dtype.type not in (np.uint8, np.uint16) or np.ma.is_masked(given):
            what = "partly masked" if np.ma.is_masked(given) else str(given.dtype)
            raise UserError(f"{where}: images are {what}; give uint8 or uint16 without a mask")
        return np.asarray(given)
    return [
        image if isinstance(image, Path) else as_source(image, f"{where}: images[{number}]")
        for number, image in enumerate(_items(given, f"{where}: images"))
    ]


def _read_with(given: Any, images: Any, where: str) -> tuple[Any, Reading | None]:
    """The images with a window, and a frame of each file; and the reading, or None where no image depends on it.

    Raises:
        UserError: a file holds several images, and none is chosen.
    """
    reading = Reading() if given is None else given
    if not isinstance(reading, Reading):
        raise UserError(
            f"{where}: reading is {_kind(given)}; give a Reading, or None for the window and frames of the files"
        )
    if isinstance(images, np.ndarray):
        return images, None
    taken = [reading.windowed_source(image) for image in images]
    return [image for image, _ in taken], reading if any(windowed for _, windowed in taken) else None


def _splits(given: Any, where: str) -> npt.NDArray[np.str_]:
    splits = _texts(given, f"{where}: splits")
    for number, split in enumerate(splits):
        if split not in SPLITS:
            raise UserError(f"{where}: unknown split {split!r} (image {number}); use train, val or test")
    return np.array(splits, dtype="<U5")


def _groups(given: Any, where: str) -> npt.NDArray[np.str_] | None:
    """Groups as text, empty for a missing value; None if no image belongs to a group."""
    groups = _cells(given, f"{where}: groups")
    return np.array(groups, dtype=np.str_) if any(groups) else None


def _subgroups(given: Any, where: str) -> dict[str, npt.NDArray[np.str_]]:
    """Columns with at least one value, as text, empty for a missing value."""
    if not isinstance(given, Mapping) or not all(isinstance(column, str) and column.strip() for column in given):
        raise UserError(f"{where}: subgroups are {_kind(given)}; give a dict of columns, such as {{'sex': [...]}}")
    columns = {}
    for column, values in given.items():
        cells = _cells(values, f"{where}: subgroups[{column!r}]")
        if (count := len({*cells} - {""})) > MOST_SUBGROUPS:
            raise UserError(
                f"{where}: subgroups[{column!r}] has {count} different values; give at most {MOST_SUBGROUPS}"
            )
        if any(cells):
            columns[column] = np.array(cells, dtype=np.str_)
    return columns


def _cells(given: Any, what: str) -> list[str]:
    return [_cell(value, what) for value in _items(given, what)]


def _cell(given: Any, what: str) -> str:
    """A value as text: a missing value becomes empty, and 12.0 becomes "12"."""
    value = given.as_py() if hasattr(given, "as_py") else given.item() if hasattr(given, "item") else given
    if _is_missing(value) or (isinstance(value, str) and is_missing(value.strip())):
        return ""
    if isinstance(value, (list, tuple, dict, bytes)):
        raise UserError(f"{what} hold {_kind(value)}; give one text or number for each image")
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def _is_missing(value: Any) -> bool:
    """Whether a value is None, NaN or a missing value of pandas.

    NaN and NaT differ from themselves; the truth of a comparison with pandas' NA is a TypeError.
    """
    if value is None:
        return True
    try:
        return not bool(value == value)
    except TypeError:
        return True


def _values(given: Any, what: str) -> npt.NDArray[Any]:
    if isinstance(given, (str, bytes)):
        raise UserError(f"{what} are a single text; give a list with one value for each image")
    if isinstance(given, np.ma.MaskedArray) and np.ma.getmaskarray(given).any():
        raise UserError(f"{what}: {int(np.ma.getmaskarray(given).sum())} values are masked; leave those images out")
    try:
        return np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{what} are {_kind(given)}, not a list; give a list with one value for each image") from error


def _items(given: Any, what: str) -> list[Any]:
    if isinstance(given, (str, bytes, os.PathLike, Mapping, Set)) or not isinstance(given, Iterable):
        raise UserError(f"{what} are {_kind(given)}; give a list with one entry for each image")
    return given.tolist() if isinstance(given, np.ndarray) else list(given)


def _texts(given: Any, what: str) -> tuple[str, ...]:
    if isinstance(given, (str, bytes, Mapping, Set)) or not isinstance(given, Iterable):
        raise UserError(f"{what} are {_kind(given)}; give a list of texts")
    items = tuple(given.tolist()) if isinstance(given, np.ndarray) else tuple(given)
    for number, item in enumerate(items):
        if not isinstance(item, str):
            raise UserError(f"{what}[{number}] is {_kind(item)}, not text")
    return items


def _path(given: Any, what: str) -> Path:
    if not isinstance(given, (str, os.PathLike)):
        raise UserError(f"{what} is {_kind(given)}; give the path of the folder, or None for arrays")
    return Path(given)


def _kind(value: Any) -> str:
    """The type of a value in a message: "a float", "an int", "None"."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def check_dataset(data: object) -> Dataset:
    """Return the dataset itself.

    Raises:
        UserError: ``data`` is not a dataset.
    """
    if isinstance(data, (str, os.PathLike)):
        raise UserError(f"data={os.fspath(data)!r} is a path or a name; give load_dataset({os.fspath(data)!r})")
    if not isinstance(data, Dataset):
        raise UserError(f"data must be a dataset from load_dataset, not {type(data).__name__}")
    return data
