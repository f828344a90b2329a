"""`load_dataset`: one function for every source of labelled images; it recognises the format."""

from __future__ import annotations

import difflib
import os
from dataclasses import replace
from pathlib import Path

from biomedcoop.data.catalogue import entries, find
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.readers.files import file_readers
from biomedcoop.data.readers.files.coop_split import apply_split, find_split_file, read_split
from biomedcoop.data.readers.folder import read_folder
from biomedcoop.data.readers.listed_files import PathFinder
from biomedcoop.data.readers.rows import check_training_images
from biomedcoop.data.readers.walk import check_text
from biomedcoop.data.sampling.split import with_test_split
from biomedcoop.data.simulate import load_simulated, marked
from biomedcoop.errors import UserError, notify

DATA_VARIABLE = "BIOMEDCOOP_DATA"
"""Environment variable with the folder of datasets that are found by name."""


def load_dataset(
    source: str | Path, *, split_file: str | Path | None = None, seed: int = 0, for_training: bool = True
) -> Dataset:
    """Read a dataset.

    Args:
        source: a folder of class folders (with or without train/val/test above), a folder with a split file, a CSV or
            Parquet table (``path,label[,class_name][,split][,group]``), a CoOp split JSON, a MedMNIST-style ``.npz``,
            ``simulated:<task>``, or the name of a dataset in the folder that ``BIOMEDCOOP_DATA`` names ("busi"). Columns of a
            table such as ``site``, ``scanner``, ``sex``, ``age`` and ``view`` give results by subgroup, if they have at most 12
            different values; the age in years becomes bands.
        split_file: CoOp JSON with the splits to use instead of the source's own.
        for_training: False for test data: one class is enough, number labels may have gaps, no training image is needed, and
            no test split is drawn.
        seed: random seed of the test split (30 % of train, stratified, groups kept together) that is drawn if there is none. None
            is drawn if a class has fewer than 34 images (or groups, such as patients): all stay training images, and
            :func:`biomedcoop.train` tests by cross-validation.

    Returns:
        The dataset. Its ``notes`` tell what was drawn, ignored or assumed; they are also issued as warnings.

    Raises:
        UserError: the data cannot be read; the message names the fault, its place and its remedy.

    Example:
        >>> import biomedcoop as bc
        >>> data = bc.load_dataset("simulated:breast-ultrasound?train=1&val=0&test=1")
        >>> data.class_names
        ('benign tumor', 'malignant tumor', 'normal scan')
        >>> len(data.part("test"))
        3
    """
    data = read_dataset(source, split_file, seed, for_training)
    notify(data.notes)
    return data


def read_dataset(
    source: str | Path,
    split_file: str | Path | None = None,
    seed: int = 0,
    for_training: bool = True,
) -> Dataset:
    """:func:`load_dataset` without warnings."""
    try:
        data = _load(source, split_file, for_training)
        wanted = for_training and not data.counts("test").any()
        return with_test_split(data, seed) if wanted else data
    except PermissionError as error:
        raise UserError(
            f"{error.filename or source}: no permission to read it ({error.strerror}); change its access rights"
        ) from error


def _load(source: str | Path, split_file: str | Path | None, for_training: bool) -> Dataset:
    split_path = None if split_file is None else user_path(split_file)
    if split_path is not None:
        check_text(split_path, split_path.name)  # the name goes into reports and notes
    if str(source).startswith("simulated:"):
        where: object = source
        data = load_simulated(str(source))
    else:
        path = _locate(source)
        check_text(path, path.name)
        if path.is_dir():
            used_split = split_path or find_split_file(path)
            where = used_split or path
            data = (
                read_split(used_split, path, for_training=for_training)
                if used_split
                else read_folder(path, for_training)
            )
            data = marked(data, path)
            split_path = None
        elif path.suffix.lower() in file_readers():
            where = path
            data = file_readers()[path.suffix.lower()](path, for_training=for_training)
        else:
            endings = ", ".join(file_readers())
            raise UserError(
                f"{path}: not a dataset; give a folder of class folders or a file with one of the endings {endings}"
            )
        if not user_path(source).exists() and path.stem.casefold() != str(source).casefold():
            data = replace(
                data, notes=(*data.notes, f"{source} was read from {path.name}, another name of this dataset")
            )
    if split_path is not None:
        where = split_path
        data = apply_split(data, split_path)
    if for_training:
        check_training_images(data, where)
    return data


def user_path(text: str | os.PathLike[str]) -> Path:
    """A path with ``~`` replaced by the home folder, if there is one."""
    if not isinstance(text, (str, os.PathLike)):
        raise UserError(f"{text!r} is not a path; give text or a Path")
    try:
        return Path(text).expanduser()
    except RuntimeError:  # "~name" without such a user
        return Path(text)


def _locate(source: str | Path) -> Path:
    """The path in ``source`` or, for a plain name, the path of the dataset with this name in the data folder."""
    if not isinstance(source, (str, os.PathLike)):
        raise UserError(f"{source!r} is not a path; give the folder, file or name of a dataset")
    text = str(source)
    if not text.strip():
        raise UserError("the dataset is an empty name; give a folder, a file or a dataset's name")
    path = PathFinder().find(user_path(text))
    if path.exists():
        return path.resolve() if path.name in ("", "..") else path.absolute()
    if isinstance(source, Path) or path.name != text or path.suffix.lower() in file_readers():
        raise UserError(f"{path}: there is no such folder or file; check the path")
    return _look_up(text)


def _look_up(name: str) -> Path:
    """The path of the dataset called ``name`` in the folder that ``BIOMEDCOOP_DATA`` names."""
    variable = os.environ.get(DATA_VARIABLE)
    by_name: dict[str, Path] = {}
    if variable:
        folder = user_path(variable)
        if not folder.is_dir():
            raise UserError(
                f"{DATA_VARIABLE} names {folder}, which is not a folder; set it to the folder of your datasets"
            )
        children = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
        by_name = {path.stem.casefold(): path for path in children if path.suffix.lower() in file_readers()}
        by_name |= {path.name.casefold(): path for path in children if path.is_dir()}
    entry = find(name)
    for candidate in (name, *(entry.all_names if entry else ())):
        if candidate.casefold() in by_name:
            return by_name[candidate.casefold()].absolute()
    searched = f"in {variable}" if variable else f"({DATA_VARIABLE} is not set)"
    if entry is not None:
        raise UserError(
            f"dataset {name!r} was not found {searched}: unpack {entry.archive} from the Hugging Face dataset "
            f"{entry.hub_dataset} and set {DATA_VARIABLE} to the folder that holds {entry.folder}/, or give a path"
        )
    known = {path.name if path.is_dir() else path.stem for path in by_name.values()}
    known |= {entry.name for entry in entries()}
    similar = difflib.get_close_matches(name.casefold(), sorted(known, key=str.casefold), n=3, cutoff=0.6)
    hint = f"; did you mean {' or '.join(similar)}?" if similar else "; give the path of a folder or file"
    raise UserError(f"there is no folder, file or dataset named {name!r} {searched}{hint}")
