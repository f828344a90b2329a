"""Folders and files that appear whole or not at all.

What is being written lies in a hidden folder beside its place, ``.NAME.new-<machine>-<number>``, which is locked while its
process lives. A killed process cannot tidy up; the next one that writes to the same place removes what nobody holds.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from pathlib import Path

from biomedcoop.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: what killed processes leave is removed by its age alone
    fcntl = None  # type: ignore[assignment]

TEMPORARY_PREFIX = ".tmp-"
"""How the names of files begin that are still being written; what a killed process leaves behind can be told by it."""

_STALE_AFTER_SECONDS = 24 * 3600
"""No process pauses so long between two writes; the rule for what another machine or an earlier version has left."""


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
    """Refuse early what :func:`new_folder` would refuse at the end of long work; tidies up after killed processes.

    Args:
        path: the folder to be written.
        overwrite: allow it to exist, if it is empty or holds the file ``mark``, by which an earlier result is known.
        contents: where given, all that an earlier result holds; a folder with anything else in it is not overwritten.

    Raises:
        UserError: it exists, or the place cannot be written to.
    """
    try:
        target = path.resolve()
        tidy(target)
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
        with _hidden(place / target.name, "probe"):
            pass
    except OSError as error:
        raise explain(path, error) from error


def check_new_file(path: Path, overwrite: bool) -> None:
    """Refuse early a file that could not be written at the end of long work.

    Args:
        path: the file to be written.
        overwrite: allow it to exist.

    Raises:
        UserError: it is a folder, exists, or its folder is not there or cannot be written to.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file")
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists already; choose another name or pass --overwrite")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UserError(
            f"the folder of {path.name} does not exist: {path.parent} is no folder; make it first or choose another place"
        )
    check_writable(folder)


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
    old, lock = _sibling(target, "old"), None
    try:
        with _hidden(target, "new") as temporary:
            yield temporary
            if target.exists():
                lock = _lock(target, wait=True)
                target.replace(old)
            temporary.replace(target)
    except OSError as error:
        raise explain(path, error) from error
    finally:
        if old.exists() and not target.exists():  # the last step failed or was interrupted
            with contextlib.suppress(OSError):
                old.replace(target)
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        if lock is not None:
            os.close(lock)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """The name of a file to write, which takes the place of ``path`` when the block ends without an error.

    Raises:
        UserError: an error of the file system inside the block.
    """
    try:
        target = path.resolve()  # a link to an earlier result stays one
        tidy(target)
        with _hidden(target, "new") as folder:
            yield folder / target.name
            (folder / target.name).replace(target)
    except OSError as error:
        raise explain(path, error) from error


def tidy(target: Path) -> None:
    """Remove what killed processes left beside ``target``; an earlier result that one had moved away is put back."""
    names = re.compile(
        rf"\.{re.escape(target.name)}\.(?P<word>new|old|probe)-(?:(?P<machine>[0-9a-f]{{8}})-)?[0-9a-f]{{8}}"
    )
    with contextlib.suppress(OSError):  # whatever is in the way of tidying is no fault of this process
        for name in os.listdir(target.parent):  # noqa: PTH208 - plain strings: the folder may hold many files
            if found := names.fullmatch(name):
                _tidy_one(target.parent / name, target, found["word"], found["machine"] == _machine())


def _tidy_one(left: Path, target: Path, word: str, ours: bool) -> None:
    try:
        lock = _lock(left)
    except BlockingIOError:  # its process lives
        return
    # the locks of other machines do not always arrive on a shared disk
    gone = (ours and lock is not None) or time.time() - _last_change(left) > _STALE_AFTER_SECONDS
    try:
        if gone and word == "old" and not target.exists():
            left.replace(target)
        elif gone:
            shutil.rmtree(left, ignore_errors=True)
            with contextlib.suppress(OSError):
                left.unlink()  # earlier versions wrote predictions to such a file
    finally:
        if lock is not None:
            os.close(lock)


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


@contextlib.contextmanager
def _hidden(target: Path, word: str) -> Iterator[Path]:
    """A hidden folder beside ``target``, locked until it has become ``target`` or is gone."""
    folder = _sibling(target, word)
    folder.mkdir(parents=True)
    lock = _lock(folder, wait=True)
    while not folder.exists():  # between its making and its lock another process took it for one left behind
        if lock is not None:
            os.close(lock)
        folder = _sibling(target, word)
        folder.mkdir()
        lock = _lock(folder, wait=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _sibling(path: Path, word: str) -> Path:
    return path.parent / f".{path.name}.{word}-{_machine()}-{uuid.uuid4().hex[:8]}"


def _lock(folder: Path, wait: bool = False) -> int | None:
    """An open, locked descriptor of a folder; None where nothing can be locked.

    The system gives the lock back when a process ends, however it ends, so no number of a process is mistaken for a later one.

    Raises:
        BlockingIOError: another process holds it, and ``wait`` is off.
    """
    if fcntl is None:
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


@cache
def _machine() -> str:
    """Eight signs for the running system; containers on one system share its locks, and this."""
    try:
        name = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except (OSError, ValueError):
        name = platform.node()
    return hashlib.blake2b(name.encode(), digest_size=4).hexdigest()


def _last_change(path: Path) -> float:
    """When anything below ``path`` was last written."""
    times = [path.lstat().st_mtime]
    for folder, _, files in os.walk(path):
        for name in (".", *files):
            with contextlib.suppress(OSError):
                times.append((Path(folder) / name).lstat().st_mtime)
    return max(times)
