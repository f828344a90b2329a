"""Download of a dataset by name, and preparation of a folder that is already here."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path

from biomedcoop.data.catalogue import CatalogueEntry, find, known_names, medmnist_class_names
from biomedcoop.data.download.archive import Limits, unpack, unpacked_size
from biomedcoop.data.download.check import DatasetCheck, check_folder, find_missing, read_published, recognise
from biomedcoop.data.download.medmnist import download_medmnist
from biomedcoop.data.readers.named import data_root, user_path
from biomedcoop.errors import UserError, nearest, notify
from biomedcoop.hub import client
from biomedcoop.hub.files import (
    bytes_left,
    check_space,
    fetch,
    find_hub_file,
    in_words,
    matches,
    read_hub_file,
    read_url,
)
from biomedcoop.output import check_writable, new_file, new_folder
from biomedcoop.progress import Progress

SPLIT_URL = "https://raw.githubusercontent.com/{repository}/main/data/{folder}/{file}"
"""Address of a published split file: it stands in the repository of its paper, the images in the hub dataset."""

OTHER_DISK = "choose another disk with --to"


def find_entry(name: str) -> CatalogueEntry:
    """The dataset of the catalogue with this name.

    Raises:
        UserError: there is none; the message offers near names.
    """
    entry = find(name)
    if entry is None and medmnist_class_names(name):
        raise UserError(f"{name} is a file of MedMNIST and not in the catalogue; https://medmnist.com describes it")
    if entry is None:
        raise UserError(f"there is no dataset {name!r} in the catalogue; {nearest(name.casefold(), known_names())}")
    return entry


def download_dataset(
    name: str,
    root: Path | None = None,
    *,
    offline: bool = False,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> DatasetCheck:
    """Put a dataset into the data folder: archive from the hub, published split file, every image checked.

    An archive that lies in the data folder already (``BUSI.zip``, and ``split_BUSI.json`` beside it) is used and kept. The
    dataset's folder appears whole or not at all.

    Args:
        name: name in the catalogue, or of a MedMNIST file ("pathmnist_224").
        root: the data folder, by default :func:`biomedcoop.data.readers.named.data_root`.
        offline: use no network; $HF_HUB_OFFLINE does the same.
        limits: of the archive.

    Returns:
        The check of the dataset's folder. Notes are issued as warnings.

    Raises:
        UserError: unknown name, no connection, a wrong checksum, a refused archive, too little space, or images that are missing.
    """
    root = (data_root() if root is None else user_path(root)).absolute()
    if find(name) is None and medmnist_class_names(name):
        return download_medmnist(name.lower(), root, offline)
    entry = find_entry(name)
    check_writable(root)
    hub = client()
    offline = offline or hub.constants.HF_HUB_OFFLINE
    with hub.utils.WeakFileLock(root / f".{entry.folder}.lock"):
        names = {entry.name.casefold(), entry.folder.casefold()}
        folders = (path for path in sorted(root.iterdir()) if path.name.casefold() in names and path.is_dir())
        there = next((path for path in folders if any(path.iterdir())), None)
        if there is None:
            check = _download(entry, root, offline, limits, progress)
        else:
            check = replace(_prepare(entry, there, offline), done="already there")
    notify(check.notes)
    if check.missing:
        raise UserError(
            f"{check.sentence}, the first is {check.missing[0]!r}; the folder is not the published dataset or not whole: move it "
            "away and download again"
        )
    return check


def prepare_folder(folder: Path, *, offline: bool = False) -> DatasetCheck:
    """Check a dataset that was downloaded by other means, and add the published split file if every image is there.

    Args:
        folder: the dataset's folder, recognised by its name or by the split file in it.
        offline: do not fetch a missing split file; it is also taken from the folder above.

    Returns:
        The check of the folder. Notes are issued as warnings.

    Raises:
        UserError: no dataset is recognised, the split file is not the published one, or none can be had.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; give the folder of a dataset, such as data/BUSI")
    entry = recognise(folder)
    if entry is None:
        raise UserError(
            f"{folder}: its name is not that of a dataset of the catalogue ('biomedcoop datasets list'), and it holds no published "
            "split file; rename it, for example to BUSI"
        )
    check = _prepare(entry, folder.absolute(), offline or client().constants.HF_HUB_OFFLINE)
    notify(check.notes)
    return check


def _prepare(entry: CatalogueEntry, folder: Path, offline: bool) -> DatasetCheck:
    file = folder / entry.split_file
    if file.is_file():
        return check_folder(entry, folder)
    content = _split_file(entry, folder.parent, folder, offline)
    listed, notes = read_published(entry, content, entry.split_file)
    missing = find_missing(folder, file, listed)
    if missing:  # with the split file, the folder could not be read at all
        return DatasetCheck(entry.name, folder, len(listed), missing, notes=notes)
    with new_file(file) as temporary:
        temporary.write_bytes(content)
    return check_folder(entry, folder, "split file added")


def _download(
    entry: CatalogueEntry, root: Path, offline: bool, limits: Limits | None, progress: Progress | None
) -> DatasetCheck:
    archive = root / entry.archive
    own = archive.exists()
    _fetch_archive(entry, archive, offline, progress)
    check_space(root, unpacked_size(archive), f"the content of {archive.name} needs", OTHER_DISK)
    target = root / entry.folder
    with new_folder(target, mark=entry.split_file) as folder:
        unpack(archive, folder, limits, progress)
        (folder / entry.split_file).write_bytes(_split_file(entry, root, folder, offline))
        check = check_folder(entry, folder, "downloaded" if not own else f"unpacked from {archive.name}")
        if check.missing:
            raise UserError(
                f"{archive}: {len(check.missing):,} of {check.images:,} images of {entry.split_file} are not in it, the first is "
                f"{check.missing[0]!r}; remove it and download it again"
            )
    if not own:
        archive.unlink()
    return replace(check, place=target)


def _fetch_archive(entry: CatalogueEntry, archive: Path, offline: bool, progress: Progress | None) -> None:
    """Make the archive be there, verified where the hub can be asked."""
    if offline:
        if not archive.is_file():
            raise UserError(
                f"{entry.name} is not in {archive.parent}, and without the network it cannot be downloaded; put {archive.name} "
                f"and {entry.split_file} there"
            )
        notify([f"{archive}: not compared with the hub's checksum, because the network is off"])
        return
    remedy = f"try again, or put {archive.name} into {archive.parent} and use --offline"
    file = find_hub_file(entry.hub_dataset, entry.archive, remedy)
    if file is None:
        raise UserError(
            f"the Hugging Face dataset {entry.hub_dataset} has no {entry.archive}; set HF_ENDPOINT to another mirror"
        )
    if archive.is_file():
        if not matches(archive, file, progress):
            raise UserError(
                f"{archive} differs from {file.url}; remove it to download it again, or use it with --offline"
            )
        return
    # images are compressed already, so they need about the archive's size once more
    left, what = bytes_left(file, archive), f"{archive.name} and its content need"
    free = check_space(archive.parent, left + file.size, what, OTHER_DISK)
    notify(
        [
            f"{what} {in_words(left + file.size)} ({in_words(left)} to download); {in_words(free)} are free in {archive.parent}"
        ]
    )
    fetch(file, archive, progress)


def _split_file(entry: CatalogueEntry, root: Path, folder: Path, offline: bool) -> bytes:
    """The published split file: from the data folder, the dataset's folder, the hub dataset, or the repository of the paper.

    Raises:
        UserError: it is in none of them, or it is not the published one.
    """
    name, where = entry.split_file, ""
    for path in chain([root / name], *(folder.glob(f"{levels}{name}") for levels in ("", "*/", "*/*/"))):
        if path.is_file():
            content, where = path.read_bytes(), str(path)
            break
    else:
        if offline:
            raise UserError(f"{name} is not in {root}, and without the network it cannot be downloaded; put it there")
        remedy = f"try again, or put the file into {root}"
        file = find_hub_file(entry.hub_dataset, name, remedy)
        where = (
            file.url if file else SPLIT_URL.format(repository=entry.split_repository, folder=entry.folder, file=name)
        )
        content = read_hub_file(file) if file else read_url(where, name, remedy)
    read_published(entry, content, where)
    return content
