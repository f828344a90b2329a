"""Folders and files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from biomedcoop.errors import UserError

TEMPORARY_PREFIX = ".tmp-"
"""How the names of files begin that are still being written; what a killed process leaves behind can be told by it."""


def cache_root() -> Path:
    """$BIOMEDCOOP_CACHE, else $XDG_CACHE_HOME/biomedcoop, else ~/.cache/biomedcoop: features, backbones, answers."""
    if named := os.environ.get("BIOMEDCOOP_CACHE"):
        return Path(named).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "biomedcoop"


def explain(path: Path, error: OSError) -> UserError:
    """An error of the file system as one line: what could not be written, why, and the way out."""
    return UserError(f"cannot write {path}: {error.strerror or error}; make room or choose another place")


def check_new_folder(path: Path, overwrite: bool, mark: str, contents: Collection[str] = ()) -> None:
    """Refuse early what :func:`new_folder` would refuse at the end of long work.

    Args:
        path: the folder to be written.
        overwrite: allow it to exist, if it is empty or holds the file ``mark``, by which an earlier result is known.
        contents: where given, all that an earlier result holds; a folder with anything else in it is not overwritten.

    Raises:
        UserError: it exists, or the place cannot be written to.
    """
    try:
        target = path.resolve()
        if path.exists():
            if not path.is_dir():
                raise UserError(f"{path} is a file; choose a folder")
            # neither can be renamed away: the one fails, the other leaves a shell in a folder that is gone
            here = Path.cwd()
            if target in (here, *here.parents) or target.is_mount():
                what = "a mount point" if target.is_mount() else "the folder you are in"
                raise UserError(f"{target} is {what}; name a new folder inside it")
            if any(path.iterdir()):
                if not overwrite:
                    raise UserError(f"{path} exists already; choose another folder or pass --overwrite")
                if not (path / mark).exists():
                    raise UserError(
                        f"{path} holds something else (no {mark} in it) and is not overwritten; choose another folder"
                    )
                if foreign := sorted(p.name for p in path.iterdir() if contents and p.name not in contents):
                    raise UserError(f"{path} also holds '{foreign[0]}' and is not overwritten; choose another folder")
        place = target.parent
        while not place.exists():
            place = place.parent
        probe = _sibling(place / target.name, "probe")
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise explain(path, error) from error


def check_writable(folder: Path) -> None:
    """Refuse early a folder in which no file can be made; it is made itself if it is not there.

    Raises:
        UserError: the file system refuses.
    """
    probe = folder / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise explain(folder, error) from error


@contextlib.contextmanager
def new_folder(path: Path, *, overwrite: bool = False, mark: str, contents: Collection[str] = ()) -> Iterator[Path]:
    """A temporary folder that takes the place of ``path`` when the block ends without an error, and vanishes otherwise.

    Raises:
        UserError: see :func:`check_new_folder`; also a full disk or another error of the file system inside the block.
    """
    check_new_folder(path, overwrite, mark, contents)
    target = path.resolve()  # a link to an earlier result stays one
    temporary, old = _sibling(target, "new"), _sibling(target, "old")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if target.exists():
            target.replace(old)
        temporary.replace(target)
    except OSError as error:
        raise explain(path, error) from error
    finally:
        if old.exists() and not target.exists():  # the last step failed or was interrupted
            with contextlib.suppress(OSError):
                old.replace(target)
        shutil.rmtree(temporary, ignore_errors=True)
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)


def write_atomically(path: Path, content: bytes) -> None:
    """:func:`replace_file` for a user's file; what is no file (``/dev/stdout``) is written as it is.

    Raises:
        UserError: the file system refuses.
    """
    try:
        if path.is_char_device() or path.is_fifo():
            path.write_bytes(content)
        else:
            replace_file(path.resolve(), [content])  # a link stays one
    except OSError as error:
        raise explain(path, error) from error


def replace_file(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file that appears under its name only when all of it is on the disk.

    Raises:
        OSError: as the system reports it; the temporary file is removed.
    """
    temporary = path.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
    try:
        # Not the tempfile module: its files are private to one user, and a store may belong to a group.
        with temporary.open("xb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    # The new name must survive a power cut too; systems that cannot sync a folder merely lose the file then.
    with contextlib.suppress(OSError):
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sibling(path: Path, word: str) -> Path:
    return path.parent / f".{path.name}.{word}-{uuid.uuid4().hex[:8]}"
