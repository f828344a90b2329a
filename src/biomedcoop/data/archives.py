"""Zip archives as folders: the path of a member is "scans.zip/benign/1.dcm". Nothing is unpacked to a disk."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from biomedcoop.errors import UserError

SUFFIX = ".zip"

MAX_ENTRIES = 200_000
"""Largest number of members of an archive."""

MAX_MEMBER = 2**31
"""Largest unpacked size of a member, bytes."""

MAX_RATIO, SMALL = 200, 2**26
"""Largest unpacked size for each packed byte, for members above so many bytes; pixels of one colour shrink more than others."""


class Stamp(NamedTuple):
    """Time of change and size of a file: another stamp is another file."""

    mtime_ns: int
    size: int


class _Index(NamedTuple):
    archive: zipfile.ZipFile
    members: dict[str, zipfile.ZipInfo]
    folders: dict[str, tuple[list[str], list[str]]]


LEAVES = "an entry has a path that leaves the archive; do not use it"


def leaves(name: str) -> bool:
    """Whether the path of an entry would lie outside the folder that an archive is unpacked into."""
    name = name.replace("\\", "/")
    return name.startswith("/") or ".." in name.split("/")


def is_archive(path: Path) -> bool:
    """Whether a path names a zip archive."""
    return path.suffix.lower() == SUFFIX and path.is_file() and zipfile.is_zipfile(path)


def inside(path: Path) -> tuple[Path, str] | None:
    """The archive that a path leads into, and the path in it ("" for the archive itself); None for any other path."""
    if SUFFIX not in str(path).lower():
        return None
    for place in (path, *path.parents):
        if place.suffix.lower() == SUFFIX and place.is_file():
            return place, "" if place == path else path.relative_to(place).as_posix()
    return None


def names(folder: Path) -> tuple[list[str], list[str]] | None:
    """The names of the folders and files in a folder of an archive, sorted; None for a path outside any archive.

    Raises:
        UserError: the archive is damaged or exceeds a limit.
    """
    found = inside(folder)
    if found is None:
        return None
    return _index(*found[:1]).folders.get(found[1], ([], []))


def is_file(path: Path) -> bool:
    """Whether a path names a file, also one in an archive."""
    if path.is_file():
        return True
    found = inside(path)
    return found is not None and found[1] in _index(found[0]).members


def stamp(path: Path) -> Stamp:
    """The stamp of a file; of a member that of its archive, with its own size.

    Raises:
        OSError: there is no such file.
    """
    found = inside(path)
    if found is None or not found[1]:
        status = path.stat()
        return Stamp(status.st_mtime_ns, status.st_size)
    return Stamp(found[0].stat().st_mtime_ns, _member(*found).file_size)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file opened for reading, also one in an archive.

    Raises:
        OSError: there is no such file.
        UserError: the archive or its member is damaged, encrypted, or exceeds a limit.
    """
    found = inside(path)
    if found is None or not found[1]:
        with path.open("rb") as file:
            yield file
        return
    info = _member(*found)
    if info.flag_bits & 1:
        raise UserError(f"{path}: it is encrypted; unpack the archive first")
    if info.file_size > MAX_MEMBER or (info.file_size > SMALL and info.file_size > MAX_RATIO * info.compress_size):
        raise UserError(
            f"{path}: it unpacks to {info.file_size:,} bytes, which looks like a decompression bomb; "
            "if you trust it, unpack it first"
        )
    try:
        with _index(found[0]).archive.open(info) as member:
            yield cast(BinaryIO, member)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise UserError(f"{path}: it is damaged in the archive; copy the archive again") from error


def _member(archive: Path, name: str) -> zipfile.ZipInfo:
    info = _index(archive).members.get(name)
    if info is None:
        raise FileNotFoundError(f"no member {name!r}")
    return info


def _index(archive: Path) -> _Index:
    status = archive.stat()
    return _read_index(os.fspath(archive), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=16)
def _read_index(archive: str, *_: int) -> _Index:
    """Members and folders of an archive.

    The open archive stays in the cache: it is read by several threads, each with a place of its own.
    """
    try:
        opened_archive = zipfile.ZipFile(archive)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UserError(f"{archive}: not a readable zip archive ({type(error).__name__}); copy it again") from error
    infos = opened_archive.infolist()
    if len(infos) > MAX_ENTRIES:
        raise UserError(f"{archive}: it holds more than {MAX_ENTRIES:,} entries; unpack it first")
    members: dict[str, zipfile.ZipInfo] = {}
    folders: dict[str, tuple[set[str], set[str]]] = {"": (set(), set())}
    for info in infos:
        name = info.filename.replace("\\", "/")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if leaves(name):
            raise UserError(f"{archive}: {LEAVES}")
        for depth in range(1, len(parts)):
            folders.setdefault("/".join(parts[: depth - 1]), (set(), set()))[0].add(parts[depth - 1])
            folders.setdefault("/".join(parts[:depth]), (set(), set()))
        if not info.is_dir() and parts:
            members["/".join(parts)] = info
            folders["/".join(parts[:-1])][1].add(parts[-1])
    listed = {name: (sorted(inner), sorted(files)) for name, (inner, files) in folders.items()}
    return _Index(opened_archive, members, listed)
