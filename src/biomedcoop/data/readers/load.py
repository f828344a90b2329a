"""`load_dataset`: one function for every source of labelled images; it recognises the format."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from biomedcoop.data import archives
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.stacks import ALL, Reading
from biomedcoop.data.images.windows import AUTO
from biomedcoop.data.readers.files import file_readers
from biomedcoop.data.readers.files.coop_split import apply_split, find_split_file, read_split
from biomedcoop.data.readers.folder import read_folder
from biomedcoop.data.readers.folder_names import is_visible, split_word
from biomedcoop.data.readers.listed_files import PathFinder
from biomedcoop.data.readers.named import DATA_VARIABLE, look_up, user_path
from biomedcoop.data.readers.rows import check_training_images
from biomedcoop.data.readers.walk import check_text
from biomedcoop.data.sampling.split import with_test_split
from biomedcoop.data.simulate import load_simulated, marked
from biomedcoop.errors import UserError, notify, whole_number


def load_dataset(
    source: str | Path,
    *,
    split_file: str | Path | None = None,
    seed: int = 0,
    for_training: bool = True,
    window: str = AUTO,
    frame: str | int = ALL,
) -> Dataset:
    """Read a dataset.

    Args:
        source: a folder of class folders (with or without train/val/test above), a folder with a split file, a CSV or
            Parquet table (``path,label[,class_name][,split][,group]``), a CoOp split JSON, a MedMNIST-style ``.npz``,
            ``simulated:<task>``, or the name of a dataset in the data folder ("busi"; see
            :func:`biomedcoop.data.readers.named.data_root`). Columns of a
            table such as ``site``, ``scanner``, ``sex``, ``age`` and ``view`` give results by subgroup, if they have at most 12
            different values; the age in years becomes bands.
        split_file: CoOp JSON with the splits to use instead of the source's own.
        for_training: False for test data: one class is enough, number labels may have gaps, no training image is needed, and
            no test split is drawn.
        seed: random seed of the test split (30 % of train, stratified, groups kept together) that is drawn if there is none. None
            is drawn if a class has fewer than 34 images (or groups, such as patients): all stay training images, and
            :func:`biomedcoop.train` tests by cross-validation.
        window, frame: for DICOM, NIfTI and NRRD files: the window of grey values, and which frames or slices are taken; see
            :class:`biomedcoop.data.images.stacks.Reading`.

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
    seed = whole_number("seed", seed, 1)
    data = read_dataset(source, split_file, seed, for_training, Reading(window, str(frame)))
    notify(data.notes)
    return data


def read_dataset(
    source: str | Path,
    split_file: str | Path | None = None,
    seed: int = 0,
    for_training: bool = True,
    reading: Reading | None = None,
) -> Dataset:
    """:func:`load_dataset` without warnings."""
    try:
        data = _load(source, split_file, for_training, reading or Reading())
        wanted = for_training and not data.counts("test").any()
        return with_test_split(data, seed) if wanted else data
    except PermissionError as error:
        raise UserError(
            f"{error.filename or source}: no permission to read it ({error.strerror}); change its access rights"
        ) from error


def _load(source: str | Path, split_file: str | Path | None, for_training: bool, reading: Reading) -> Dataset:
    split_path = None if split_file is None else user_path(split_file)
    if split_path is not None:
        check_text(split_path, split_path.name)  # the name goes into reports and notes
    if str(source).startswith("simulated:"):
        where: object = source
        data = load_simulated(str(source))
    else:
        path = locate(source)
        check_text(path, path.name)
        if archives.is_archive(path):
            where = path
            data = read_folder(single_folder(path), for_training, reading)
        elif path.is_dir():
            used_split = split_path or find_split_file(path)
            where = used_split or path
            data = (
                read_split(used_split, path, for_training=for_training, reading=reading)
                if used_split
                else read_folder(path, for_training, reading)
            )
            data = marked(data, path)
            split_path = None
        elif path.suffix.lower() in file_readers():
            where = path
            data = file_readers()[path.suffix.lower()](path, for_training=for_training, reading=reading)
        else:
            endings = ", ".join(file_readers())
            raise UserError(
                f"{path}: not a dataset; give a folder of class folders, a zip archive of them, or a file with one "
                f"of the endings {endings}"
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


def single_folder(archive: Path) -> Path:
    """The folder of an archive that holds all else in it, as most archives have one; the archive itself if there is none."""
    place = archive
    while True:
        folders, files = archives.names(place) or ([], [])
        visible = [name for name in folders if is_visible(name)]
        if len(visible) != 1 or any(map(is_visible, files)) or split_word(visible[0]):
            return place
        below, _ = archives.names(place / visible[0]) or ([], [])
        if not below:
            return place
        place = place / visible[0]


def locate(source: str | Path, root: Path | None = None, way: str = f"set {DATA_VARIABLE} to") -> Path:
    """The path in ``source`` or, for a plain name, the path of the dataset with this name in the data folder.

    Args:
        root, way: see :func:`biomedcoop.data.readers.named.look_up`.
    """
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
    return look_up(text, root, way)
