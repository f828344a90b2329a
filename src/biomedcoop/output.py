"""Atomic writing: a folder or file appears when it is complete, or not at all.

A process writes into a hidden folder beside the target, ``.NAME.new-<machine>-<number>``, and holds a lock on it. A killed process
leaves its hidden folder behind; the next process that writes to the same target removes hidden folders that no process has locked.
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
except ImportError:  # Windows: leftovers of killed processes are removed by their age alone
    fcntl = None  # type: ignore[assignment]

TEMPORARY_PREFIX = ".tmp-"
"""Start of the names of unfinished files; it marks the leftovers of a killed process."""

_STALE_AFTER_SECONDS = 24 * 3600
"""Age from which leftovers of another machine or an earlier version count as abandoned; no process pauses so long."""


def cache_root() -> Path:
    """The cache folder for features, backbones and answers of language models.

    It is $BIOMEDCOOP_CACHE, else $XDG_CACHE_HOME/biomedcoop, else ~/.cache/biomedcoop.
    """
    if named := os.environ.get("BIOMEDCOOP_CACHE"):
        return Path(named).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "biomedcoop"


def explain(path: Path, error: OSError) -> UserError:
    """A file system error as a :class:`UserError`: the path, the reason, and the way out."""
    return UserError(f"cannot write {path}: {error.strerror or error}; make room or choose another place")


def check_new_folder(path: Path, overwrite: bool, mark: str, contents: Collection[str] = ()) -> None:
    """Check before long work that :func:`new_folder` can write a folder; remove leftovers of killed processes.

    Args:
        path: folder to write.
        overwrite: allow the folder to exist if it is empty or holds the file ``mark``.
        mark: name of the file that marks an earlier result.
        contents: names of everything in an earlier result; a folder with anything else in it is not overwritten. Empty
            allows any name.

    Raises:
        UserError: the folder exists, or cannot be written.
    """
    try:
        target = path.resolve()
        tidy(target)
        if path.exists():
            if not path.is_dir():
                raise UserError(f"{path} is a file; choose a folder")
            # renaming a mount point fails; renaming the current folder leaves the user's shell in a folder that is gone
            here = Path.cwd()
            if target in (here, *here.parents) or target.is_mount():
                what = "a mount point" if target.is_mount() else "the folder you are in"
                raise UserError(f"{target} is {what}; name a new folder inside it")
            if any(path.iterdir()):
                if not overwrite:
                    raise UserError(f"{path} exists already; choose another folder or pass --overwrite")
                if not (path / mark).exists():
                    raise UserError(
                        f"{path} holds other files (there is no {mark}) and is not overwritten; choose another folder"
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
    """Check before long work that a file can be written.

    Args:
        path: file to write.
        overwrite: allow the file to exist.

    Raises:
        UserError: the path is a folder, the file exists, or its folder does not exist or cannot be written to.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file")
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists already; choose another name or pass --overwrite")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UserError(
            f"the folder of {path.name} does not exist: {path.parent} is not a folder; create it first or choose another place"
        )
    check_writable(folder)


def check_apart(outputs: Iterable[Path | None], inputs: Iterable[Path]) -> None:
    """Check before long work that no output replaces another one, or an input.

    Raises:
        UserError: one does; links and other spellings of a path count.
    """
    taken = {os.path.realpath(path): "is read by this command too" for path in inputs}
    for path in outputs:
        if path is None:
            continue
        if (why := taken.get(os.path.realpath(path))) is not None:
            raise UserError(f"{path} {why}; choose another name")
        taken[os.path.realpath(path)] = "is named for two files to write"


def check_writable(folder: Path) -> None:
    """Check before long work that a file can be created in a folder; create the folder if it does not exist.

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
    """Yield a temporary folder that replaces ``path`` when the block ends; after an error it is removed.

    Raises:
        UserError: see :func:`check_new_folder`; also a full disk or another file system error inside the block.
    """
    check_new_folder(path, overwrite, mark, contents)
    target = path.resolve()  # a link to an earlier result stays one
    old, lock = _sibling(target, "old"), None
    try:
        with _hidden(target, "new") as temporary:
            yield temporary
            if target.exists():
                lock = lock_of(target, wait=True)
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
    """Yield the path of a temporary file that replaces ``path`` when the block ends; after an error it is removed.

    Raises:
        UserError: a file system error inside the block.
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
    """Remove leftovers of killed processes beside ``target``; restore an earlier result that a killed process had moved away."""
    names = re.compile(
        rf"\.{re.escape(target.name)}\.(?P<word>new|old|probe)-(?:(?P<machine>[0-9a-f]{{8}})-)?[0-9a-f]{{8}}"
    )
    with contextlib.suppress(OSError):  # leftovers that cannot be removed must not stop this process
        for name in os.listdir(target.parent):  # noqa: PTH208 - plain strings: the folder may hold many files
            if leftover := names.fullmatch(name):
                _tidy_one(target.parent / name, target, leftover["word"], leftover["machine"] == _machine())


def _tidy_one(left: Path, target: Path, word: str, ours: bool) -> None:
    try:
        lock = lock_of(left)
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
    """Write a user's file with :func:`replace_file`; a device or pipe such as ``/dev/stdout`` is written directly.

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
    """Write a file that appears under its name only when its whole content is on the disk.

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
    # The new name must survive a power cut too; a system that cannot sync a folder may lose the file then.
    with contextlib.suppress(OSError):
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _hidden(target: Path, word: str) -> Iterator[Path]:
    """Yield a locked hidden folder beside ``target``; remove it at the end, unless it has been renamed to ``target``."""
    folder = _sibling(target, word)
    folder.mkdir(parents=True)
    lock = lock_of(folder, wait=True)
    while not folder.exists():  # before the lock was set, another process removed the folder as a leftover
        if lock is not None:
            os.close(lock)
        folder = _sibling(target, word)
        folder.mkdir()
        lock = lock_of(folder, wait=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _sibling(path: Path, word: str) -> Path:
    return path.parent / f".{path.name}.{word}-{_machine()}-{uuid.uuid4().hex[:8]}"


def lock_of(folder: Path, wait: bool = False) -> int | None:
    """An open, locked descriptor of a folder; None where the system cannot lock.

    The system releases the lock whenever the process ends. A process number in a file could be mistaken for a later process.

    Raises:
        BlockingIOError: another process holds the lock, and ``wait`` is off.
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
    """Eight characters that identify the running system; containers on one system share them, as they share its locks."""
    try:
        name = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except (OSError, ValueError):
        name = platform.node()
    return hashlib.blake2b(name.encode(), digest_size=4).hexdigest()


def _last_change(path: Path) -> float:
    """Time of the last change to anything below ``path``, in seconds since the epoch."""
    times = [path.lstat().st_mtime]
    for folder, _, files in os.walk(path):
        for name in (".", *files):
            with contextlib.suppress(OSError):
                times.append((Path(folder) / name).lstat().st_mtime)
    return max(times)
