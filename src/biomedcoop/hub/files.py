"""Files of a Hugging Face repository: resumed where a download broke off, and compared with the hub's checksum."""

from __future__ import annotations

import errno
import hashlib
import io
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from biomedcoop.errors import UserError
from biomedcoop.hub.client import client, endpoint, one_line_errors, route
from biomedcoop.progress import Progress, counting

_CHUNK = 2**20
_PAGE = (b"<!doctype html", b"<html")
"""Start of a web page; no file that is downloaded here begins so."""


@dataclass(frozen=True)
class HubFile:
    """A file of a repository of the hub.

    Attributes:
        repository: "owner/name".
        kind: "dataset" or "model".
        name: name of the file, with its folders in the repository.
        url: address of the file, in this commit.
        commit: commit of the repository.
        size: in bytes.
        checksum: its SHA-256, or for a file outside large file storage Git's SHA-1; hex.
    """

    repository: str
    kind: str
    name: str
    url: str
    commit: str
    size: int
    checksum: str

    @property
    def base(self) -> str:
        """Name of the file on this machine: without folders."""
        return self.name.rpartition("/")[2]


def find_hub_file(
    repository: str, name: str, remedy: str = "try again", *, kind: str = "dataset", revision: str = "main"
) -> HubFile | None:
    """Ask the hub about a file; None if the repository has no such file.

    The address of the hub is $HF_ENDPOINT, where it is set, and the token the user's own ($HF_TOKEN).

    Args:
        remedy: what the user can do without the hub, for the error line.
        kind: "dataset" or "model".
        revision: branch, tag or commit.

    Raises:
        UserError: no connection, no such repository or revision, no right to read it, or a server that is no hub.
    """
    hub = client()
    place = f"the Hugging Face {kind} {repository}"

    def address(revision: str) -> str:
        return str(hub.hf_hub_url(repository, name, repo_type=kind, revision=revision, endpoint=endpoint()))

    with one_line_errors(f"the hub cannot be asked about {name} of {place}", remedy, address(revision)):
        try:
            facts = hub.get_hf_file_metadata(address(revision))
        except hub.utils.EntryNotFoundError:
            return None
        except hub.utils.GatedRepoError as error:
            page = f"{endpoint()}/{'datasets/' if kind == 'dataset' else ''}{repository}"
            raise UserError(
                f"access to {place} is restricted: accept its terms at {page} and set HF_TOKEN to your token; {remedy}"
            ) from error
        except hub.utils.RepositoryNotFoundError as error:
            raise UserError(
                f"there is no {place.removeprefix('the ')} at {endpoint()}, or your account may not read it; check its name, "
                f"or set HF_TOKEN to your token, or {remedy}"
            ) from error
        except hub.utils.RevisionNotFoundError as error:
            raise UserError(f"{place} has no revision '{revision}'; give a branch, a tag or a whole commit") from error
    if facts.size is None or len(facts.etag or "") not in (40, 64) or not facts.commit_hash:
        raise UserError(
            f"{address(revision)}: the answer is not that of a Hugging Face hub (no size, checksum or commit), perhaps of a "
            f"proxy or a login page{_by(address(revision))}; {remedy}"
        )
    return HubFile(repository, kind, name, address(facts.commit_hash), facts.commit_hash, facts.size, facts.etag)


def fetch(
    file: HubFile,
    target: Path,
    progress: Progress | None = None,
    instead: str = "",
) -> None:
    """Download a file; what an earlier attempt left beside ``target`` is continued. It appears under its name when it is verified.

    Args:
        progress: reports the comparison with the checksum; the hub's client shows the download itself.
        instead: what the user can do in place of the download, for the error line.

    Raises:
        UserError: no connection (what arrived is kept), or a content that differs from the hub's checksum (it is removed).
    """
    part = _part(target, file)
    for old in target.parent.glob(_part(target).name):
        if old != part or old.stat().st_size > file.size:
            old.unlink()  # of an earlier version of the file

    def remedy() -> str:
        some = part.is_file() and part.stat().st_size > 0
        return "try again" + (", what arrived is kept" if some else "") + (f"; or {instead}" if instead else "")

    try:
        _continue(file, part, remedy)
    finally:
        if part.is_file():
            _refuse_page(file, part, remedy)
    if not matches(part, file, progress):
        part.unlink()
        raise UserError(
            f"{file.name} from {file.repository} differs from the hub's checksum {file.checksum}; try again"
        )
    part.replace(target)


def _continue(file: HubFile, part: Path, remedy: Callable[[], str]) -> None:
    hub, before = client(), part.stat().st_size if part.exists() else 0
    with (
        one_line_errors(f"{file.name} cannot be downloaded from {file.url}", remedy, file.url),
        part.open("ab") as out,
    ):
        try:
            hub.file_download.http_get(
                file.url,
                out,
                resume_size=before,
                headers=hub.utils.build_hf_headers(),
                expected_size=file.size,
                displayed_filename=file.base,
            )
        except Exception as error:
            number = getattr(error, "errno", None)
            if number == errno.ENOSPC:
                raise UserError(f"{part.parent}: the disk is full; make room and {remedy()}") from error
            out.flush()
            here = part.stat().st_size
            # each version of the client says it in other words, some with advice about an argument that is not ours
            if number is None and before < here < file.size:
                raise OSError(f"the connection ended after {here:,} of {file.size:,} bytes") from error
            raise


def _refuse_page(file: HubFile, part: Path, remedy: Callable[[], str]) -> None:
    """Remove what arrived if it is a web page."""
    with part.open("rb") as content:
        start = content.read(64).lstrip().lower()
    if start.startswith(_PAGE):
        part.unlink()
        raise UserError(
            f"{file.url}: a web page came in place of {file.base}, perhaps of a proxy or a login page{_by(file.url)}; "
            f"{remedy()}"
        )


def _by(url: str) -> str:
    return f" ({by})" if (by := route(url)) else ""


def in_cache(repository: str, kind: str, name: str, revision: str) -> Path | None:
    """A file in the cache of the hub's own client ($HF_HOME); None if it is not there."""
    found = client().try_to_load_from_cache(repository, name, revision=revision, repo_type=kind)
    return Path(found) if isinstance(found, str) else None


def is_offline(asked: bool = False) -> bool:
    """Whether the network is off: ``asked`` for, or by $HF_HUB_OFFLINE."""
    return asked or bool(client().constants.HF_HUB_OFFLINE)


def bytes_left(file: HubFile, target: Path) -> int:
    """Bytes of a file that :func:`fetch` has to download."""
    part = _part(target, file)
    return file.size - (part.stat().st_size if part.is_file() else 0)


def check_space(place: Path, needed: int, what: str, remedy: str) -> int:
    """Free bytes of a disk.

    Args:
        what: what needs the space, with its verb, for the error line.
        remedy: how to choose another disk, for the error line.

    Raises:
        UserError: there are less than needed.
    """
    free = shutil.disk_usage(place).free
    if free < needed:
        raise UserError(f"{place}: {what} {in_words(needed)}, but {in_words(free)} are free; make room or {remedy}")
    return free


def in_words(size: int) -> str:
    """A number of bytes as text: 784300000 -> "784.3 MB"."""
    if size < 50_000:  # else "0.0 MB"
        return f"{size / 1e3:.1f} kB"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def matches(path: Path, file: HubFile, progress: Progress | None = None) -> bool:
    """Whether a file on the disk has the hub's size and checksum."""
    size = path.stat().st_size
    if size != file.size:
        return False
    start = hashlib.sha256() if len(file.checksum) == 64 else hashlib.sha1(b"blob %d\0" % size)
    return _digest(path, start, counting(progress, f"verifying {file.base} (bytes)")) == file.checksum


def sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    return _digest(path, hashlib.sha256())


def _digest(path: Path, digest: hashlib._Hash, progress: Callable[[int, int], None] | None = None) -> str:
    size = path.stat().st_size
    with path.open("rb") as content:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
            if progress is not None:
                progress(content.tell(), size)
    return digest.hexdigest()


def read_hub_file(file: HubFile) -> bytes:
    """The content of a small file; see :func:`fetch`."""
    with tempfile.TemporaryDirectory() as folder:
        fetch(file, Path(folder) / file.base)
        return (Path(folder) / file.base).read_bytes()


def read_url(url: str, name: str, remedy: str = "try again") -> bytes:
    """The content of a small file outside the hub; there is no checksum to compare it with.

    Args:
        remedy: what the user can do without this file, for the error line.

    Raises:
        UserError: no connection, or no such file.
    """
    content = io.BytesIO()
    with one_line_errors(f"{name} cannot be downloaded from {url}", remedy, url):
        client().file_download.http_get(url, content, displayed_filename=name)
    return content.getvalue()


def _part(target: Path, file: HubFile | None = None) -> Path:
    """The unfinished file of a download, or without ``file`` the pattern of all that lead to ``target``."""
    return target.with_name(f".{target.name}.{file.checksum[:12] if file else '*'}.part")
