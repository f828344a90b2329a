"""Folders and files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from biomedcoop.errors import UserError


def explain(path: Path, error: OSError) -> UserError:
    """An error of the file system as one line: what could not be written, why, and the way out."""
    return UserError(f"cannot write {path}: {error.strerror or error}; make room or choose another place")


def check_new_folder(path: Path, overwrite: bool, mark: str) -> None:
    """Refuse early what :func:`new_folder` would refuse at the end of long work.

    Args:
        path: the folder to be written.
        overwrite: allow it to exist, if it is empty or holds the file ``mark``, by which an earlier result is known.

    Raises:
        UserError: it exists, or the place cannot be written to.
    """
    if path.exists():
        if not path.is_dir():
            raise UserError(f"{path} is a file; choose a folder")
        if any(path.iterdir()):
            if not overwrite:
                raise UserError(f"{path} exists already; choose another folder or pass --overwrite")
            if not (path / mark).exists():
                raise UserError(
                    f"{path} holds something else (no {mark} in it) and is not overwritten; choose another folder"
                )
    probe = _sibling(path, "probe")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise explain(path, error) from error


@contextlib.contextmanager
def new_folder(path: Path, *, overwrite: bool = False, mark: str) -> Iterator[Path]:
    """A temporary folder that takes the place of ``path`` when the block ends without an error, and vanishes otherwise.

    Raises:
        UserError: see :func:`check_new_folder`; also a full disk or another error of the file system inside the block.
    """
    check_new_folder(path, overwrite, mark)
    temporary, old = _sibling(path, "new"), _sibling(path, "old")
    try:
        temporary.mkdir()
        yield temporary
        if path.exists():
            path.replace(old)
        temporary.replace(path)
    except OSError as error:
        if old.exists() and not path.exists():
            old.replace(path)
        raise explain(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file by way of a temporary one beside it.

    Raises:
        UserError: the file system refuses.
    """
    temporary = _sibling(path, "new")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise explain(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _sibling(path: Path, word: str) -> Path:
    return path.absolute().parent / f".{path.name}.{word}-{uuid.uuid4().hex[:8]}"
