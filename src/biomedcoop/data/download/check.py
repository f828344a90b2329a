"""The check of a folder against the published split file: is it the published one, and is every image there."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biomedcoop.data.catalogue import CatalogueEntry, entries, external_sites, find
from biomedcoop.data.names import fold
from biomedcoop.data.readers.files.coop_split import SplitEntry, find_image_root, find_split_file, parse_entries
from biomedcoop.data.readers.listed_files import PathFinder
from biomedcoop.errors import UserError


@dataclass(frozen=True)
class DatasetCheck:
    """What is on this machine of a published dataset.

    Attributes:
        name: name in the catalogue.
        place: the dataset's folder, or file.
        images: number of images that the split file lists.
        missing: those that are not in the folder, or are empty files.
        done: what was done, in words: "downloaded", "split file added", "" for nothing.
        notes: what the user must know, a sentence each.
    """

    name: str
    place: Path
    images: int
    missing: tuple[str, ...]
    done: str = ""
    notes: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The result in one line."""
        if self.missing:
            are = "is" if len(self.missing) == 1 else "are"
            return f"{self.name}: {len(self.missing):,} of {self.images:,} images {are} missing in {self.place}"
        return f"{self.name}: all {self.images:,} images are in {self.place}" + (f" ({self.done})" if self.done else "")

    def to_dict(self) -> dict[str, Any]:
        """The check as JSON, with every missing image."""
        return {
            "name": self.name,
            "place": str(self.place),
            "images": self.images,
            "complete": not self.missing,
            "missing": list(self.missing),
            "done": self.done,
            "notes": list(self.notes),
        }


def recognise(folder: Path) -> CatalogueEntry | None:
    """The dataset of the catalogue that a folder holds, by its published split file or by its own name; None for any other."""
    for entry in (*entries(), *external_sites()):
        if (folder / entry.split_file).is_file():
            return entry
    return find(folder.absolute().name)


def read_published(entry: CatalogueEntry, content: bytes, where: object) -> tuple[list[SplitEntry], tuple[str, ...]]:
    """The lines of a published split file, and notes.

    Where the catalogue has no SHA-256, classes and numbers of images are compared instead, and a note tells the label order.

    Raises:
        UserError: it is not the published file: another SHA-256 or other classes.
    """
    found = hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()  # Git on Windows may write other line ends
    if entry.split_sha256 not in (None, found):
        raise UserError(
            f"{where}: not the published split file of {entry.name} (its SHA-256 is {found[:12]}…, expected "
            f"{entry.split_sha256[:12] if entry.split_sha256 else ''}…); remove or rename it"
        )
    listed = parse_entries(content, where)
    if entry.split_sha256 is not None:
        return listed, ()
    order = {line.label: line.class_name for line in listed}
    if {*map(fold, order.values())} != {*map(fold, entry.class_names)}:
        raise UserError(
            f"{where}: its classes ({', '.join(sorted({*order.values()}))}) are not those of {entry.name} "
            f"({', '.join(sorted(entry.class_names))}); use the published split file"
        )
    classes = ", ".join(order[label] for label in sorted(order))
    notes = [f"{entry.name}: no SHA-256 of {entry.split_file} is known; the label order is that of the file: {classes}"]
    counts = Counter(line.split for line in listed)
    if any(counts[split] != count for split, count in entry.counts.items()):
        found_counts = ", ".join(f"{count:,} {split}" for split, count in counts.items())
        notes.append(f"{entry.name}: {entry.split_file} lists {found_counts}; the catalogue has {entry.images}")
    return listed, tuple(notes)


def find_missing(folder: Path, split_file: Path, listed: Sequence[SplitEntry]) -> tuple[str, ...]:
    """The images of a split file that are not below ``folder``, or are empty files."""
    root, finder = find_image_root(folder, split_file, listed), PathFinder()

    def is_there(key: str) -> bool:
        path = finder.find(root / key.replace("\\", "/"))
        return path.is_file() and path.stat().st_size > 0

    return tuple(line.key for line in listed if not is_there(line.key))


def check_folder(entry: CatalogueEntry, folder: Path, done: str = "") -> DatasetCheck:
    """Compare a folder with the published split file in it.

    Raises:
        UserError: the folder has no published split file, or another one than the published.
    """
    file = folder / entry.split_file
    if not file.is_file():
        raise UserError(
            f"{folder}: it does not hold {entry.split_file}; run 'biomedcoop datasets prepare {folder}' to add it"
        )
    listed, notes = read_published(entry, file.read_bytes(), file)
    used = find_split_file(folder)
    if used is not None and used != file:
        notes += (f"{entry.name}: {used.name} is read in place of {file.name}; remove it for the published splits",)
    return DatasetCheck(entry.name, folder, len(listed), find_missing(folder, file, listed), done, notes)
