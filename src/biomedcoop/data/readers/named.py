"""The data folder, and the datasets that are found in it by name."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from biomedcoop.data.catalogue import find, known_names, medmnist_class_names
from biomedcoop.data.readers.files import file_readers
from biomedcoop.errors import UserError
from biomedcoop.output import cache_root

DATA_VARIABLE = "BIOMEDCOOP_DATA"
"""Environment variable with the folder of datasets that are found by name."""


def data_root() -> Path:
    """The data folder: $BIOMEDCOOP_DATA, else ``datasets`` in the user's cache folder; it may not exist yet."""
    variable = os.environ.get(DATA_VARIABLE)
    return user_path(variable) if variable else cache_root() / "datasets"


def find_named(name: str, root: Path | None = None) -> Path | None:
    """The path of the dataset called ``name`` in a data folder, also under another name of the catalogue; None if there is none.

    Args:
        root: the data folder, by default :func:`data_root`.
    """
    by_name = _children(data_root() if root is None else root)
    entry = find(name)
    for candidate in (name, *(entry.all_names if entry else ())):
        if candidate.casefold() in by_name:
            return by_name[candidate.casefold()].absolute()
    return None


def look_up(name: str, root: Path | None = None, way: str = f"set {DATA_VARIABLE} to") -> Path:
    """:func:`find_named` in the data folder, which must hold the dataset.

    Args:
        root: the data folder that the user named, else :func:`data_root`.
        way: how to name another data folder, for the message.

    Raises:
        UserError: it does not; the message offers the download or near names, also those of the current folder.
    """
    found = find_named(name, root)
    if found is not None:
        return found
    variable = os.environ.get(DATA_VARIABLE)
    if root is not None:
        searched = f"in {root}"
    else:
        root = data_root()
        if variable and not root.is_dir():
            raise UserError(
                f"{DATA_VARIABLE} names {root}, which is not a folder; set it to the folder of your datasets"
            )
        searched = f"in {root}" + ("" if variable else f" ({DATA_VARIABLE} is not set)")
    entry = find(name)
    if entry is not None or medmnist_class_names(name):
        held = f"{entry.folder}/" if entry else f"{name}.npz"
        raise UserError(
            f"dataset {name!r} was not found here or {searched}: run 'biomedcoop datasets download "
            f"{entry.name if entry else name}', {way} the folder that holds {held}, or give a path"
        )
    named = {path.name if path.is_dir() else path.stem for path in _children(root).values()} | set(known_names())
    known = {other.casefold(): other for other in named} | {key: path.name for key, path in _children(Path()).items()}
    similar = difflib.get_close_matches(name.casefold(), sorted(known), n=3, cutoff=0.6)
    hint = (
        f"did you mean {' or '.join(dict.fromkeys(known[key] for key in similar))}?"
        if similar
        else f"give the path of a folder or file, or {way} the folder of your datasets"
    )
    raise UserError(f"there is no folder or file {name!r} here, and no dataset of that name {searched}; {hint}")


def _children(root: Path) -> dict[str, Path]:
    """Folded name -> path of each folder and dataset file in a data folder; none if it does not exist."""
    if not root.is_dir():
        return {}
    children = [path for path in sorted(root.iterdir()) if not path.name.startswith(".")]
    by_name = {path.stem.casefold(): path for path in children if path.suffix.lower() in file_readers()}
    return by_name | {path.name.casefold(): path for path in children if path.is_dir()}


def user_path(text: str | os.PathLike[str]) -> Path:
    """A path with ``~`` replaced by the home folder, if there is one."""
    if not isinstance(text, (str, os.PathLike)):
        raise UserError(f"{text!r} is not a path; give text or a Path")
    try:
        return Path(text).expanduser()
    except RuntimeError:  # "~name" without such a user
        return Path(text)
