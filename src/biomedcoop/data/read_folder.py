"""Reader for a folder of class folders, with or without ``train``/``val``/``test`` folders above them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from biomedcoop.data.catalogue import find
from biomedcoop.data.dataset import SPLITS, Dataset
from biomedcoop.data.images import IMAGE_SUFFIXES
from biomedcoop.data.names import clean_class_name
from biomedcoop.data.rows import Row, build_dataset, check_class_names, split_word, unknown_split
from biomedcoop.errors import UserError

_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


def read_folder(folder: Path) -> Dataset:
    """Read ``<class>/…/image`` or ``<split>/<class>/…/image`` below ``folder``.

    Class names are the folders' names with ``_`` as space, sorted; a benchmark dataset gets the label order of the
    catalogue. Files within a class are sorted by path. Hidden files are passed over; what is not an image is counted in
    a note.

    Raises:
        UserError: no image, images without class folder, or splits or classes that make no dataset.
    """
    folder = folder.absolute()
    splits = _split_folders(folder)
    ignored: Counter[str] = Counter()
    found: list[tuple[str, str, Path]] = []  # split, class folder, image
    empty: list[Path] = []
    for split, split_folder in splits:
        for class_folder in _visible_folders(split_folder):
            images = _images_below(class_folder, ignored)
            if not images:
                empty.append(class_folder)
            found += [(split, class_folder.name, path) for path in images]
    loose = [path for _, above in splits for path in _images_in(above)]
    if not found:
        raise UserError(_nothing_found(folder, loose, ignored))

    folder_names = sorted({name for _, name, _ in found})
    if len(folder_names) == 1:
        only = found[0][2].relative_to(folder)
        raise UserError(
            f"{folder}: one class ({folder_names[0]!r}, e.g. {only}), but a classifier needs at least two; "
            "give the folder that holds one folder per class"
        )
    without = next((path for path in empty if path.name not in folder_names), None)
    if without is not None:
        raise UserError(f"{without}: this class folder holds no image that can be read; add some or remove the folder")
    check_class_names(folder_names, folder)
    class_names = _label_order(folder.name, [clean_class_name(name) for name in folder_names])
    label_of = {name.casefold(): label for label, name in enumerate(class_names)}
    rows = [
        Row(path.relative_to(folder).as_posix(), path, label_of[clean_class_name(name).casefold()], split)
        for split, name, path in found
    ]
    notes = []
    if ignored:
        kinds = ", ".join(f"{suffix or 'no suffix'}: {count}" for suffix, count in ignored.most_common(5))
        notes.append(f"{ignored.total()} files in {folder.name} are not images and were ignored ({kinds})")
    if loose:
        notes.append(f"{len(loose)} images in {folder.name} lie outside the class folders and were ignored")
    return build_dataset(folder.name, class_names, rows, folder, folder, notes)


def _split_folders(folder: Path) -> list[tuple[str, Path]]:
    """The folders that hold class folders, with their split: one per split, or ``folder`` itself as train."""
    children = _visible_folders(folder)
    by_split: dict[str, Path] = {}
    others = []
    for child in children:
        split = split_word(child.name)
        if split is None:
            others.append(child)
        elif split in by_split:
            raise UserError(f"{folder}: {by_split[split].name!r} and {child.name!r} both mean {split}; merge them")
        else:
            by_split[split] = child
    if "train" not in by_split and (others or not by_split):
        return [("train", folder)]  # "Test" and "Control" may be class names
    for child in others:
        if any(_images_below(child, Counter())):
            raise unknown_split(child.name, folder)
    return [(split, by_split[split]) for split in SPLITS if split in by_split]


def _label_order(name: str, class_names: Sequence[str]) -> list[str]:
    """The catalogue's names and order if ``name`` is a benchmark dataset with just these classes, else sorted."""
    entry = find(name)
    if entry and sorted(map(str.casefold, entry.class_names)) == sorted(map(str.casefold, class_names)):
        return list(entry.class_names)
    return sorted(class_names)


def _visible(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in _LITTER


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _visible(path.name) and path.is_dir())


def _images_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if _is_image(path.name) and path.is_file()]


def _is_image(name: str) -> bool:
    return _visible(name) and Path(name).suffix.lower() in IMAGE_SUFFIXES


def _images_below(folder: Path, ignored: Counter[str]) -> list[Path]:
    """The images below ``folder``, sorted by path; other files are counted in ``ignored`` by suffix."""
    images: list[Path] = []
    visited: set[str] = set()
    for current, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(current)
        folders[:] = [] if real in visited else [name for name in folders if _visible(name)]
        if real in visited:  # a link that leads back
            continue
        visited.add(real)
        images += [Path(current, name) for name in files if _is_image(name)]
        ignored.update(Path(name).suffix.lower() for name in files if _visible(name) and not _is_image(name))
    return sorted(images)


def _nothing_found(folder: Path, loose: Sequence[Path], ignored: Counter[str]) -> str:
    if loose:
        return (
            f"{folder}: its {len(loose)} images are in no class folder; "
            "put them into one folder per class, or give a table with the columns path,label"
        )
    if ignored:
        suffix, count = ignored.most_common(1)[0]
        return f"{folder}: no image in it ({count} files are {suffix or 'without suffix'}); convert them to PNG or JPEG"
    return f"{folder}: no image in it; expected one folder per class with PNG, JPEG or TIFF files"
