"""Safe unpacking: an archive from a stranger writes ordinary files inside the given folder, within limits, or is refused."""

from __future__ import annotations

import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from biomedcoop.data.readers.folder_names import is_visible
from biomedcoop.errors import UserError
from biomedcoop.progress import Progress

_CHUNK = 2**20
_DEVICE_NAME = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)\s*(\..*)?", re.IGNORECASE)
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError)
_REMEDY = "if you trust it, unpack it by hand and run 'biomedcoop datasets prepare'"


@dataclass(frozen=True)
class Limits:
    """What an archive may hold.

    Attributes:
        files: number of entries.
        unpacked: size of all files, in bytes.
        ratio: unpacked size for each byte of the archive; images are compressed already and stay below 10.
    """

    files: int = 1_000_000
    unpacked: int = 200 * 2**30
    ratio: float = 100.0


class _Member(NamedTuple):
    """One entry of an archive; ``fault`` says why it is refused, "" for a file, None for a folder."""

    name: str
    size: int
    fault: str | None
    open: Callable[[], IO[bytes] | None]


def unpacked_size(archive: Path) -> int:
    """Size of all files in an archive, in bytes, as it states them; of a tar archive, which has no list, twice its own size."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            return sum(info.file_size for info in file.infolist())
    return 2 * archive.stat().st_size


def unpack(archive: Path, folder: Path, limits: Limits | None = None, progress: Progress | None = None) -> None:
    """Unpack a zip or tar archive into an empty folder.

    Files of the operating system, such as ``__MACOSX``, are left out, and no access rights are taken over. After an error the
    folder holds a part of the files: unpack into a temporary folder.

    Raises:
        UserError: an entry is absolute, leaves the folder, is a link or a device, has a name that Windows cannot hold, or comes
            twice; the archive exceeds a limit, is damaged or is neither zip nor tar.
    """
    limits = limits or Limits()
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                _write(archive, folder, _zip_members(packed), limits, progress, len(packed.infolist()))
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tape:
                _write(archive, folder, _tar_members(tape), limits, progress, 0)
        else:
            raise UserError(f"{archive}: it is neither a zip nor a tar archive; download it again")
    except NotImplementedError as error:  # a compression that Python lacks
        raise UserError(f"{archive}: {error}; unpack it by hand and run 'biomedcoop datasets prepare'") from error
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the file system, for the caller
            raise
        raise UserError(f"{archive}: damaged ({error}); remove it and download it again") from error


def _write(
    archive: Path, folder: Path, members: Iterator[_Member], limits: Limits, progress: Progress | None, of: int
) -> None:
    most = min(limits.unpacked, int(limits.ratio * archive.stat().st_size))
    total, seen = 0, set()
    for number, member in enumerate(members, 1):
        if number > limits.files:
            raise UserError(f"{archive}: it holds more than {limits.files:,} entries; {_REMEDY}")
        parts = _safe_parts(member.name, archive)
        if member.fault:
            raise UserError(f"{archive}: {member.name!r} is {member.fault}, which is not unpacked; {_REMEDY}")
        total += member.size
        if total > most:
            raise UserError(
                f"{archive}: it unpacks to more than {most:,} bytes, which looks like a decompression bomb; {_REMEDY}"
            )
        if member.fault is None or not all(map(is_visible, parts)):
            continue
        if parts in seen:
            raise UserError(f"{archive}: two entries are named {member.name!r}; {_REMEDY}")
        seen.add(parts)
        _write_one(member, folder.joinpath(*parts), archive)
        if progress is not None:
            progress("unpacking", number, of)


def _write_one(member: _Member, target: Path, archive: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        out = target.open("xb")
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        # a file and a folder of one name, or two names that this file system takes for one
        raise UserError(f"{archive}: {member.name!r} clashes with another entry; {_REMEDY}") from error
    source = member.open()
    assert source is not None, "a file of an archive can be opened"
    with out, source:
        while chunk := source.read(_CHUNK):
            out.write(chunk)


def _safe_parts(name: str, archive: Path) -> tuple[str, ...]:
    """The parts of an entry's path.

    Raises:
        UserError: the path would leave the folder, or cannot be written on every system.
    """
    parts = parts_of(name)
    if isinstance(parts, str):
        raise UserError(f"{archive}: {name!r} is {parts}, which is not unpacked; {_REMEDY}")
    return parts


def parts_of(name: str) -> tuple[str, ...] | str:
    """The parts of a path that a stranger gives for a file in a folder; or its fault, as "an absolute path"."""
    path = name.replace("\\", "/")  # archives made on Windows may have backslashes; no dataset has them in a name
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if path.startswith("/") or re.match("[A-Za-z]:", path):
        return "an absolute path"
    if ".." in parts:
        return "a path that leaves the folder"
    if re.search('[\x00-\x1f:<>"|?*]', path) or any(
        _DEVICE_NAME.fullmatch(part) or part.endswith((".", " ")) for part in parts
    ):
        return "a name that Windows cannot hold"
    return parts


def _zip_members(archive: zipfile.ZipFile) -> Iterator[_Member]:
    for info in archive.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was made on Windows
        fault: str | None = "a link" if kind == stat.S_IFLNK else "a device"
        if kind in (0, stat.S_IFREG, stat.S_IFDIR):
            encrypted = info.flag_bits & 1
            fault = None if info.is_dir() else "encrypted" if encrypted else ""
        yield _Member(info.filename, info.file_size, fault, lambda info=info: archive.open(info))  # type: ignore[misc]


def _tar_members(archive: tarfile.TarFile) -> Iterator[_Member]:
    for info in archive:
        fault: str | None = "a link" if info.issym() or info.islnk() else "a device"
        if info.isreg() or info.isdir():
            fault = None if info.isdir() else ""
        yield _Member(info.name, info.size, fault, lambda info=info: archive.extractfile(info))  # type: ignore[misc]
