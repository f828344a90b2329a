"""Reader for split files in the CoOp form: ``{"train": [[path, label, class name], …], "val": […], "test": […]}``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple
from unicodedata import normalize

import numpy as np

from biomedcoop.data import archives
from biomedcoop.data.dataset import SPLITS, Dataset
from biomedcoop.data.images.sources import ImageInFile
from biomedcoop.data.images.stacks import Reading, split_frame
from biomedcoop.data.names import fold
from biomedcoop.data.readers.folder_names import is_visible, split_word
from biomedcoop.data.readers.listed_files import ListedFiles, PathFinder
from biomedcoop.data.readers.rows import (
    Row,
    build_dataset,
    listed_twice,
    names_by_label,
    unknown_split,
)
from biomedcoop.errors import UserError

_FORM = '{"train": [[path, label, class name], …], "val": […], "test": […]}'


class SplitEntry(NamedTuple):
    """One line of a split file."""

    split: str
    key: str
    label: int
    class_name: str


def find_split_file(folder: Path) -> Path | None:
    """The split file of a dataset folder: ``split.json``, else the published ``split_<NAME>.json``, else None.

    Raises:
        UserError: several published split files and none named after the folder.
    """
    if (folder / "split.json").is_file():
        return folder / "split.json"
    found = sorted(path for path in folder.glob("split_*.json") if path.is_file())
    if len(found) < 2:
        return found[0] if found else None
    for path in found:
        if path.stem.casefold() == f"split_{folder.name}".casefold():
            return path
    names = ", ".join(path.name for path in found)
    raise UserError(f"{folder}: it holds several split files ({names}); choose one with --split-file")


def read_split(
    file: Path, folder: Path | None = None, *, for_training: bool = True, reading: Reading | None = None
) -> Dataset:
    """Read a split file and find its images.

    Args:
        file: the JSON file.
        for_training: False for test data: one class is enough, and label numbers may have gaps.
        folder: the dataset's folder, by default the file's. Paths are relative to it or, as in the published datasets,
            to the folder of the same name inside it (``BUSI/split_BUSI.json`` with images in ``BUSI/BUSI/``), or to another
            folder inside it.

    Raises:
        UserError: the file is malformed or contradicts itself, or lists files that are missing or outside the folder.
    """
    folder = file.absolute().parent if folder is None else folder.absolute()
    entries = read_entries(file)
    class_names = names_by_label(((entry.label, entry.class_name) for entry in entries), file, for_training)
    root = find_image_root(folder, file, entries)
    files = ListedFiles(root, file, confined=True)
    rows = [Row(entry.key, files.add(entry.key, entry.split), entry.label, entry.split) for entry in entries]
    files.check_existence()
    return build_dataset(folder.name, class_names, rows, root, file, for_training=for_training, reading=reading)


def apply_split(data: Dataset, file: Path) -> Dataset:
    """``data`` with the order and the splits of a split file; images that the file does not list are left out.

    The paths in the file are keys of ``data``, or relative to its root.

    Raises:
        UserError: the file is malformed, lists an image twice or with another class, or lists one that is not in ``data``.
    """
    position = {key: index for index, key in enumerate(data.keys)}
    if data.root is not None:  # a table may write a path in another way than the split file
        files = [(i, str(image)) for i, image in enumerate(data.images) if isinstance(image, (Path, ImageInFile))]
        position = {Path(os.path.relpath(image, data.root)).as_posix(): index for index, image in files} | position
    # a file name may have another Unicode form here than in the split file
    if not all(map(str.isascii, position)):
        position = {normalize("NFC", key): index for key, index in position.items()} | position
    chosen: dict[int, SplitEntry] = {}
    for entry in read_entries(file):
        index = position.get(entry.key, position.get(normalize("NFC", entry.key)))
        if index is None:
            raise UserError(f"{file}: {entry.key!r} is not an image of {data.name}; use the split file of this dataset")
        if index in chosen:
            raise UserError(f"{file}: {entry.key!r} is {listed_twice(chosen[index].split, entry.split)}")
        class_name = data.class_names[data.labels[index]]
        if fold(entry.class_name) != fold(class_name):
            raise UserError(
                f"{file}: {entry.key!r} is listed as class {entry.label} {entry.class_name!r}, "
                f"but in {data.name} it is {data.labels[index]} {class_name!r}; use the split file of this dataset"
            )
        chosen[index] = entry
    selected = data.select(list(chosen))
    return replace(selected, splits=np.array([entry.split for entry in chosen.values()], dtype=np.str_))


def read_entries(file: Path) -> list[SplitEntry]:
    """The lines of a split file, train first, each in file order; only their form is checked.

    Raises:
        UserError: the file is missing, not JSON, or not of the CoOp form.
    """
    try:
        return parse_entries(file.read_bytes(), file)
    except FileNotFoundError as error:
        raise UserError(f"{file}: there is no such file") from error
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error})") from error


def parse_entries(text: bytes, file: object) -> list[SplitEntry]:
    """:func:`read_entries` from the content of a split file; ``file`` names it in messages."""
    try:
        content = json.loads(text.decode("utf-8-sig"), object_pairs_hook=without_repeats)
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or a split given twice
        raise UserError(f"{file}: not a readable JSON file ({error}); expected {_FORM}") from error
    if not isinstance(content, dict) or not content:
        raise UserError(f"{file}: not a split file; expected {_FORM}")
    lists: dict[str, list[SplitEntry]] = {}
    for word, listed in content.items():
        split = split_word(word)
        if split is None:
            raise unknown_split(word, file)
        if split in lists:
            raise UserError(f"{file}: two lists for the split {split!r}; merge them")
        if not isinstance(listed, list):
            raise UserError(f"{file}: {word!r} is not a list; expected {_FORM}")
        lists[split] = [_entry(raw, split, f"{file}: {word} entry {number}") for number, raw in enumerate(listed, 1)]
    return [entry for split in SPLITS for entry in lists.get(split, ())]


def _entry(raw: Any, split: str, where: str) -> SplitEntry:
    match raw:
        case [str(key), int(label), str(class_name)] if key and not isinstance(label, bool):
            return SplitEntry(split, key, label, class_name)
    raise UserError(f"{where} is {json.dumps(raw)[:80]}; expected [path, label number, class name]")


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object from its pairs.

    Raises:
        ValueError: a key appears twice.
    """
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"'{key}' appears twice")
        content[key] = value
    return content


def find_image_root(folder: Path, file: Path, entries: Sequence[SplitEntry]) -> Path:
    """The folder that the paths of a split file are relative to.

    It is the dataset's folder, the one of the same name inside it (the published layout), or another one up to two levels below:
    the first that holds all of about fifty sampled images, else the one that holds most.
    """
    sample = entries[:: max(1, len(entries) // 50)]
    published = file.stem.removeprefix("split_")  # split_BUSI.json -> BUSI
    finder = PathFinder()
    best, most = folder, -1
    for root in chain([folder, folder / folder.name, folder / published], _below(folder, 2)):
        found = sum(
            archives.is_file(split_frame(finder.find(root / entry.key.replace("\\", "/")))[0]) for entry in sample
        )
        if found > most:
            best, most = root, found
        if found == len(sample):
            break
    return best


def _below(folder: Path, levels: int) -> Iterator[Path]:
    """The folders below ``folder``, the upper ones first; without those of the operating system."""
    children = sorted(path for path in folder.iterdir() if is_visible(path.name) and path.is_dir())
    yield from children
    if levels > 1:
        for child in children:
            yield from _below(child, levels - 1)


READERS = {".json": read_split}
