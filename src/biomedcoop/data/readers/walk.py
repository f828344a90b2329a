"""The walk through folders for training, testing and predicting: it finds images and counts the files that it leaves out.

Names are sorted; hidden files and files of the operating system are skipped. Links are followed, but each real folder is read
once, so that a link to a parent folder causes no loop. Masks beside their images are left out.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from biomedcoop.data import archives
from biomedcoop.data.images.decoders import image_suffixes, unread_suffixes
from biomedcoop.data.images.decoders.base import START_BYTES
from biomedcoop.data.images.decoders.dicom import DicomDecoder
from biomedcoop.data.names import is_text
from biomedcoop.data.readers.folder_names import (
    is_mask_folder,
    is_visible,
    mask_folders,
    masks_of,
    may_be_class,
    mirrored,
)
from biomedcoop.errors import UserError

_MOST_KINDS = 5

ZIP_RULE = "a zip archive is read only where nothing else is, and never inside another: unpack it"

BESIDE = "beside the images in"
"""Words of the note on masks, which does not belong where the masks are used."""


@dataclass(frozen=True)
class Contents:
    """The names in one folder, sorted."""

    folders: list[str]
    images: list[str]
    masks: list[str]
    others: list[str]


class Walk:
    """A walk over the folders of a dataset or of images to predict; it counts the files that it leaves out.

    DICOM files are known by their content. A zip archive is a folder; those in a folder are read if it holds nothing else to read.

    Attributes:
        dangling: links whose target does not exist.
    """

    def __init__(self) -> None:
        self.dangling: list[Path] = []
        self._seen: dict[str, tuple[str, Path]] = {}
        self._others: Counter[str] = Counter()
        self._masks = 0
        self._first_mask: Path | None = None
        self._mask_folders: dict[Path, int] = {}

    def images(self, top: Path, owner: str = "") -> Iterator[Path]:
        """The images below ``top``; the images of a folder come before the images of its subfolders.

        Args:
            owner: owner of the images, e.g. a class; one real folder may have only one owner.

        Raises:
            UserError: a folder cannot be read, or already belongs to another owner.
        """
        links: list[Path] = []
        yield from self._descend(top, owner, links)
        for link in links:  # links come after the real folders, so that they do not change the paths of images
            yield from self._descend(link, owner, links)

    def folders(self, folder: Path) -> list[Path]:
        """The folders in ``folder``; links to ``folder`` or its parents are left out."""
        inside = os.path.realpath(folder)
        paths = [folder / name for name in self.contents(folder).folders]
        return [path for path in paths if not _leads_back(os.path.realpath(path), inside)]

    def contents(self, folder: Path) -> Contents:
        """The names in ``folder`` by kind; folders of masks are noted and left out.

        Raises:
            UserError: the folder cannot be read, or a name is not UTF-8.
        """
        folders, files = self._visible_names(folder)
        images = [name for name in files if is_image(name) or _is_dicom(folder / name)]
        mask_stems = masks_of([_stem(name) for name in images])
        masks = [name for name in images if _stem(name) in mask_stems]
        images = [name for name in images if _stem(name) not in mask_stems]
        for name in _mask_folders(folder, folders, images):
            folders.remove(name)
            self._mask_folders[folder / name] = sum(
                is_visible(file) for _, _, held in os.walk(folder / name) for file in held
            )
        used = {*images, *masks}
        return Contents(folders, images, masks, [name for name in files if name not in used])

    def notes(self, name: str, named: bool = True) -> list[str]:
        """Notes on the files that were left out of the folder called ``name``, a sentence each.

        Args:
            named: name the first file of each kind and the folders of masks; False for files that are shared, because names may
                be those of patients.
        """

        def first(path: str) -> str:
            return f", first {path}" if named else ""

        notes = []
        if lacking := self.lacking(name):
            notes.append(lacking)
        others = Counter({suffix: count for suffix, count in self._others.items() if suffix not in unread_suffixes()})
        if others:
            commonest = others.most_common(_MOST_KINDS)
            kinds = ", ".join(f"{suffix or 'no suffix'}: {count}" for suffix, count in commonest)
            more = ", …" if len(others) > len(commonest) else ""
            count = others.total()
            what = (
                f"{count} files in {name} are not images and were"
                if count > 1
                else f"1 file in {name} is not an image and was"
            )
            zipped = f"; {ZIP_RULE}" if others[archives.SUFFIX] else ""
            notes.append(f"{what} ignored ({kinds}{more}){zipped}")
        if self._first_mask is not None:
            what = f"{self._masks} masks" if self._masks > 1 else "a mask"
            mask = f"{self._first_mask.parent.name}/{self._first_mask.name}"
            notes.append(f"{what} {BESIDE} {name} {'were' if self._masks > 1 else 'was'} left out{first(mask)}")
        if self.dangling:
            notes.append(f"{len(self.dangling)} links in {name} lead nowhere{first(self.dangling[0].name)}")
        notes += [
            f"the folder {folder.name}{f' in {folder.parent.name}' if named else ''} holds masks and was left out (files: {count})"
            for folder, count in self._mask_folders.items()
        ][:_MOST_KINDS]
        if len(self._mask_folders) > _MOST_KINDS:
            notes.append(f"{len(self._mask_folders)} folders of masks in {name} were left out in all")
        return notes

    def lacking(self, name: str) -> str:
        """A sentence on the files left out of the folder called ``name`` that a package would read; empty if there are none."""
        packages = unread_suffixes()
        found = {suffix: count for suffix, count in sorted(self._others.items()) if suffix in packages}
        if not found:
            return ""
        count = sum(found.values())
        what = f"{count} files in {name} need" if count > 1 else f"1 file in {name} needs"
        kinds = ", ".join(f"{suffix}: {count}" for suffix, count in found.items())
        install = " ".join(dict.fromkeys(packages[suffix] for suffix in found))
        return f"{what} a package that is not here and {'were' if count > 1 else 'was'} ignored ({kinds}): pip install {install}"

    @property
    def others(self) -> Counter[str]:
        """Number of files that are not images, by suffix."""
        return self._others

    def _descend(self, folder: Path, owner: str, links: list[Path]) -> Iterator[Path]:
        real = os.path.realpath(folder)
        if real in self._seen:
            other, first = self._seen[real]
            if other != owner:
                raise UserError(
                    f"{folder} and {first} are the same folder, but stand for different classes or splits; "
                    "remove the link"
                )
            return
        self._seen[real] = (owner, folder)
        contents = self.contents(folder)
        alone = not contents.images and not contents.folders
        packed = [name for name in contents.others if alone and archives.is_archive(folder / name)]
        for name in contents.others:
            if name not in packed:
                self._others[_suffix(name)] += 1
        if contents.masks and self._first_mask is None:
            self._first_mask = folder / contents.masks[0]
        self._masks += len(contents.masks)
        yield from (folder / name for name in contents.images)
        for name in packed:
            yield from self._descend(folder / name, owner, links)
        for name in contents.folders:
            path = folder / name
            target = os.path.realpath(path)
            if target == os.path.join(real, name):  # noqa: PTH118 - compared as text
                yield from self._descend(path, owner, links)
            elif not _leads_back(target, real):
                links.append(path)

    def _visible_names(self, folder: Path) -> tuple[list[str], list[str]]:
        """The names of the visible folders and files in ``folder``."""
        if (packed := archives.names(folder)) is not None:
            return tuple([name for name in of if is_visible(name)] for of in packed)  # type: ignore[return-value]
        folders, files = [], []
        try:
            with os.scandir(folder) as entries:
                for entry in sorted((entry for entry in entries if is_visible(entry.name)), key=lambda e: e.name):
                    if entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110 - Path.exists raises on a loop
                        if folder / entry.name not in self.dangling:
                            self.dangling.append(folder / entry.name)
                        if is_image(entry.name):
                            files.append(entry.name)
                    elif entry.is_dir():
                        folders.append(entry.name)
                    else:
                        files.append(entry.name)
        except OSError as error:
            raise UserError(
                f"{folder}: the folder cannot be read ({error.strerror or error}); change its access rights"
            ) from error
        for name in (*folders, *filter(is_image, files)):
            if not is_text(name):
                check_text(folder / name, name)
        return folders, files


def lacking(folder: Path) -> str:
    """A sentence on the files below a folder that are images to a package that is missing; empty if there are none."""
    walk = Walk()
    list(walk.images(folder))
    return walk.lacking(folder.name)


def is_image(name: str) -> bool:
    """Whether a file name has the ending of an image format."""
    return name.lower().endswith(image_suffixes())


def check_text(path: Path, name: str) -> None:
    """Refuse a name that no table, report or split file can hold.

    Raises:
        UserError: ``name`` is not UTF-8.
    """
    if not is_text(name):
        raise UserError(
            f"{str(path)!r}: the name is not UTF-8, so no table or report can hold it; rename it, e.g. with convmv"
        )


def _mask_folders(folder: Path, folders: list[str], images: list[str]) -> list[str]:
    """The folders in ``folder`` that hold masks, by their own name or by the names of their files.

    A doubtful name needs files that have, for the most part, the names of the images beside the folder.
    """
    masks = mask_folders(folders)
    # among class folders, "mask" may be a class
    doubtful = [n for n in folders if n not in masks and is_mask_folder(n) and (images or not may_be_class(n))]
    if not doubtful:
        return masks
    others = [name for name in folders if name not in (*masks, *doubtful)]
    stems = [_stem(name) for name in images] or [stem for name in others for stem in _stems_below(folder / name)]
    return masks + [name for name in doubtful if mirrored(_stems_below(folder / name), stems)]


def _stems_below(folder: Path) -> list[str]:
    names = (name for _, _, held in os.walk(folder) for name in held)
    return [_stem(name) for name in names if is_visible(name) and is_image(name)]


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]  # noqa: PTH122


def _leads_back(target: str, inside: str) -> bool:
    """Whether the folder ``target`` is ``inside`` or one of its parents."""
    return target == inside or inside.startswith(target.rstrip(os.sep) + os.sep)


def _suffix(name: str) -> str:
    suffix = ".nii.gz" if name.lower().endswith(".nii.gz") else Path(name).suffix.lower()
    return suffix if is_text(suffix) else ascii(suffix)


def _is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its content, as scanners write it: without an ending, or with a number as one."""
    try:
        if not archives.is_file(path):
            return False
        with archives.opened(path) as file:
            return DicomDecoder().recognizes(file.read(START_BYTES))
    except (OSError, UserError):
        return False
