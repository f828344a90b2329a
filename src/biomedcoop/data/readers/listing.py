"""Images of any source, labelled or not: what `load_dataset` reads, and what is read for prediction."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from biomedcoop.data import archives
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.sources import ImageSource
from biomedcoop.data.images.stacks import Reading, split_frame
from biomedcoop.data.readers.files import file_readers
from biomedcoop.data.readers.files.coop_split import find_split_file
from biomedcoop.data.readers.load import read_dataset, single_folder
from biomedcoop.data.readers.named import user_path
from biomedcoop.data.readers.unlabelled import ListedImage, find_images
from biomedcoop.data.readers.walk import Walk
from biomedcoop.data.tables.reading import TABLE_SUFFIXES, open_table
from biomedcoop.errors import UserError


@dataclass
class Listing:
    """Images of one or several sources; one entry for each image in every list.

    Attributes:
        images: the images.
        keys: their names: a path as the source gives it, relative to a folder of class folders, or "train[7]" for an array.
        classes: class name, or None where the source gives none.
        splits: "train", "val" or "test", or None where the source divides nothing.
        notes: how the sources were read.
    """

    images: list[ImageSource] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    classes: list[str | None] = field(default_factory=list)
    splits: list[str | None] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, other: Listing, prefix: str = "") -> None:
        """Add the images of another source, with ``prefix`` before their keys."""
        self.images += other.images
        self.keys += [prefix + key for key in other.keys]
        self.classes += other.classes
        self.splits += other.splits
        self.notes += other.notes


def list_images(
    sources: Sequence[str | os.PathLike[str]], labels: bool = True, reading: Reading | None = None
) -> Listing:
    """List the images of sources.

    A source is read as :func:`biomedcoop.load_dataset` reads it if it gives classes: class folders, a folder with a split file, a
    table with a column ``label``, a split JSON, an ``.npz``, ``simulated:<task>``, or the name of a dataset. Any other source is
    read as for prediction: an image file, a folder that holds images itself, a table with a column ``path``. With several sources,
    the keys of a labelled one begin with its name.

    Args:
        labels: False to read every folder and every table of paths as for prediction.
        reading: how files with windows and frames are read.

    Raises:
        UserError: there is no source, or one cannot be read.
    """
    if not len(sources):
        raise UserError("no images are named; give a folder, a file or the name of a dataset")
    listing = Listing()
    for given in sources:
        if not isinstance(given, (str, os.PathLike)):
            raise UserError(f"a source of images is of the type {type(given).__name__}; give paths or names")
        source = os.fspath(given)
        if _gives_classes(source, labels):
            listing.add(_labelled(source, reading), f"{source}/" if len(sources) > 1 else "")
        else:
            listing.add(_unlabelled(source, reading))
    return listing


def _gives_classes(source: str, labels: bool) -> bool:
    path = user_path(source)
    if source.startswith("simulated:") or not (path.exists() or archives.is_file(split_frame(path)[0])):
        return True
    if archives.is_archive(path):
        return labels and not Walk().contents(single_folder(path)).images
    if path.is_dir():
        return labels and (find_split_file(path) is not None or not Walk().contents(path).images)
    if path.suffix.lower() in TABLE_SUFFIXES:
        return labels and open_table(path, ("path",)).find("label") is not None
    return path.suffix.lower() in file_readers()


def _labelled(source: str, reading: Reading | None) -> Listing:
    try:
        data = read_dataset(source, for_training=False, reading=reading)
    except UserError as error:
        path = user_path(source)
        if (path.is_dir() or archives.is_archive(path)) and any(Walk().images(user_path(source))):
            raise UserError(f"{error}; or read the images without classes (--no-labels)") from error
        raise
    return of_dataset(data)


def of_dataset(data: Dataset) -> Listing:
    """The images of a dataset; its splits count if it has more than one."""
    divided = len(set(data.splits)) > 1
    return Listing(
        list(data.images),
        list(data.keys),
        [data.class_names[label] for label in data.labels],
        [str(split) if divided else None for split in data.splits],
        list(data.notes),
    )


def _unlabelled(source: str, reading: Reading | None) -> Listing:
    listing = Listing()
    said: dict[str, None] = {}
    for image in find_images([user_path(source)], tell=lambda note: said.update({note: None}), reading=reading):
        listed = image if isinstance(image, ListedImage) else ListedImage(image, str(image), {})
        listing.images.append(listed.file)
        listing.keys.append(listed.path)
    listing.notes += said
    listing.classes += [None] * len(listing.keys)
    listing.splits += [None] * len(listing.keys)
    return listing
