"""The image files that a split file or a table lists, with checks that each exists and is listed once."""

from __future__ import annotations

import os
from pathlib import Path
from unicodedata import normalize

from biomedcoop.data import archives
from biomedcoop.data.images.stacks import split_frame
from biomedcoop.data.readers.rows import listed_twice
from biomedcoop.errors import UserError


class ListedFiles:
    """Turns the paths that a split file or a table lists into files, each at most once.

    A path is also found in another Unicode form: macOS writes the "é" of a file name as two characters, most other systems as one.

    Args:
        root: folder that relative paths start from.
        where: the listing, for messages.
        confined: refuse absolute paths, ``..`` and symbolic links that leave ``root``, because a split file may come from
            a stranger.
    """

    def __init__(self, root: Path, where: object, confined: bool) -> None:
        self._root, self._where, self._confined = root, where, confined
        self._real_root = os.path.realpath(root)
        self._real_folders: dict[str, str] = {}
        self._seen: dict[str, tuple[str, str]] = {}
        self._missing: list[str] = []
        self._finder = PathFinder()

    def add(self, listed: str, split: str) -> Path:
        """The file that ``listed`` names; `check_existence` later reports all missing files at once.

        Raises:
            UserError: the file is outside the dataset folder, or listed already.
        """
        path = self._finder.find(self._root / listed.replace("\\", "/"))
        folder = os.path.dirname(path)  # noqa: PTH120 - strings are fast, and this runs once per image
        if folder not in self._real_folders:
            self._real_folders[folder] = os.path.realpath(folder)
        real = os.path.join(self._real_folders[folder], path.name)  # noqa: PTH118
        if not os.path.isfile(path) and not archives.is_file(split_frame(path)[0]):  # noqa: PTH113
            self._missing.append(listed)
        elif os.path.islink(real):  # noqa: PTH114
            real = os.path.realpath(real)
        if self._confined and not real.startswith(self._real_root + os.sep):
            raise UserError(
                f"{self._where}: {listed!r} is a path outside the dataset folder {self._root}; "
                "copy the image into the folder and list it by its relative path"
            )
        if real in self._seen:
            other, other_split = self._seen[real]
            alias = "" if other == listed else f" (also as {other!r})"
            raise UserError(
                f"{self._where}: {listed!r} is {listed_twice(other_split, split)}{alias}; keep one of the two entries"
            )
        self._seen[real] = (listed, split)
        return path

    def check_existence(self) -> None:
        """Raise if any file added so far does not exist."""
        if self._missing:
            first, count = self._missing[0], len(self._missing)
            others = f" ({count} of the {len(self._seen)} listed images are missing)" if count > 1 else ""
            raise UserError(
                f"{self._where}: there is no file {first!r} in {self._root}{others}; "
                "put the images there or correct the paths"
            )


class PathFinder:
    """Finds files whose path has another Unicode form on the disk; it lists each folder once."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, str | None]] = {}

    def find(self, path: Path) -> Path:
        """``path`` in the spelling of the disk, or unchanged if there is no such file."""
        # an ASCII path has only one Unicode form
        return path if str(path).isascii() or os.path.lexists(path) else Path(self._on_disk(str(path)) or path)

    def _on_disk(self, path: str) -> str | None:
        """``path`` in the spelling of the disk, or None if there is no such file."""
        if os.path.lexists(path):
            return path
        above, name = os.path.split(path)
        folder = self._on_disk(above) if above and above != path else "."
        found = None if folder is None else self._names_in(folder).get(normalize("NFC", name))
        return None if found is None or folder is None else os.path.join(folder, found)  # noqa: PTH118

    def _names_in(self, folder: str) -> dict[str, str | None]:
        """Composed form (NFC) -> name of each file in a folder; None if two names have the same composed form."""
        if folder not in self._names:
            try:
                names = os.listdir(folder)  # noqa: PTH208
            except OSError:
                names = []
            known: dict[str, str | None] = {}
            for name in names:
                composed = normalize("NFC", name)
                known[composed] = None if composed in known else name
            self._names[folder] = known
        return self._names[folder]
