"""Files of a Hugging Face dataset: resumed where a download broke off, and compared with the hub's checksum."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from biomedcoop.errors import UserError
from biomedcoop.hub import client, one_line_errors
from biomedcoop.progress import Progress

_CHUNK = 2**20


@dataclass(frozen=True)
class HubFile:
    """A file of a hub dataset; ``checksum`` is its SHA-256, or for a file outside large file storage Git's SHA-1."""

    repository: str
    name: str
    url: str
    size: int
    checksum: str


def find_hub_file(repository: str, name: str, remedy: str = "try again") -> HubFile | None:
    """Ask the hub about a file of a dataset; None if the dataset has no such file.

    The address of the hub is $HF_ENDPOINT, where it is set, and the token the user's own.

    Args:
        remedy: what the user can do without the hub, for the error line.

    Raises:
        UserError: no connection, no such dataset or no right to read it, or a server that gives no checksum.
    """
    hub = client()
    url = hub.hf_hub_url(repository, name, repo_type="dataset", endpoint=os.environ.get("HF_ENDPOINT") or None)
    with one_line_errors(f"the hub cannot be asked about {name} of the Hugging Face dataset {repository}", remedy):
        try:
            facts = hub.get_hf_file_metadata(url)
        except hub.utils.EntryNotFoundError:
            return None
    if facts.size is None or len(facts.etag or "") not in (40, 64):
        raise UserError(f"{url}: the server gives no size or checksum of {name}; set HF_ENDPOINT to another mirror")
    return HubFile(repository, name, url, facts.size, facts.etag)


def fetch(file: HubFile, target: Path, progress: Progress | None = None) -> None:
    """Download a file; what an earlier attempt left beside ``target`` is continued. It appears under its name when it is verified.

    Args:
        progress: reports the comparison with the checksum; the hub's client shows the download itself.

    Raises:
        UserError: no connection (what arrived is kept), or a content that differs from the hub's checksum (it is removed).
    """
    part = _part(target, file)
    for old in target.parent.glob(_part(target).name):
        if old != part or old.stat().st_size > file.size:
            old.unlink()  # of an earlier version of the file
    hub = client()
    with (
        one_line_errors(f"{file.name} cannot be downloaded from {file.repository}", "try again, what arrived is kept"),
        part.open("ab") as out,
    ):
        hub.file_download.http_get(
            file.url,
            out,
            resume_size=part.stat().st_size,
            headers=hub.utils.build_hf_headers(),
            expected_size=file.size,
            displayed_filename=file.name,
        )
    if not matches(part, file, progress):
        part.unlink()
        raise UserError(
            f"{file.name} from {file.repository} differs from the hub's checksum {file.checksum}; try again"
        )
    part.replace(target)


def bytes_left(file: HubFile, target: Path) -> int:
    """Bytes of a file that :func:`fetch` has to download."""
    part = _part(target, file)
    return file.size - (part.stat().st_size if part.is_file() else 0)


def matches(path: Path, file: HubFile, progress: Progress | None = None) -> bool:
    """Whether a file on the disk has the hub's size and checksum."""
    size = path.stat().st_size
    if size != file.size:
        return False
    digest = hashlib.sha256() if len(file.checksum) == 64 else hashlib.sha1(b"blob %d\0" % size)
    with path.open("rb") as content:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
            if progress is not None:
                progress(f"verifying {file.name} (bytes)", content.tell(), size)
    return digest.hexdigest() == file.checksum


def read_hub_file(file: HubFile) -> bytes:
    """The content of a small file; see :func:`fetch`."""
    with tempfile.TemporaryDirectory() as folder:
        fetch(file, Path(folder) / file.name)
        return (Path(folder) / file.name).read_bytes()


def read_url(url: str, name: str, remedy: str = "try again") -> bytes:
    """The content of a small file outside the hub; there is no checksum to compare it with.

    Args:
        remedy: what the user can do without this file, for the error line.

    Raises:
        UserError: no connection, or no such file.
    """
    content = io.BytesIO()
    with one_line_errors(f"{name} cannot be downloaded from {url}", remedy):
        client().file_download.http_get(url, content, displayed_filename=name)
    return content.getvalue()


def _part(target: Path, file: HubFile | None = None) -> Path:
    """The unfinished file of a download, or without ``file`` the pattern of all that lead to ``target``."""
    return target.with_name(f".{target.name}.{file.checksum[:12] if file else '*'}.part")
