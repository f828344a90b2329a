"""A client of the server that shows what it gets."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


class Client:
    """Sends one request at a time to a port of the loopback address."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        reply = Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        connection.close()
        return reply

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask("GET", path, **headers)

    def send(self, path: str, *files: Path | tuple[str, bytes], **headers: str) -> Reply:
        """Post a form of files."""
        return self.ask("POST", path, form(files), **{"Content_Type": "multipart/form-data; boundary=edge", **headers})

    def refused(self, status: int, path: str, *files: Path | tuple[str, bytes]) -> str:
        """Post a form that must be refused; returns the line."""
        return line_of(self.send(path, *files), status)


def line_of(reply: Reply, status: int) -> str:
    """The one line of a refusal."""
    assert reply.status == status, reply.content[:300]
    assert list(reply.json) == ["error"]
    line = reply.json["error"]
    assert line
    assert "\n" not in line
    assert len(line) < 300
    return str(line)


def form(files: Sequence[Path | tuple[str, bytes]]) -> bytes:
    """A form with the boundary "edge"."""
    parts = []
    for file in files:
        name, content = (file.name, file.read_bytes()) if isinstance(file, Path) else file
        head = f'--edge\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        parts.append(head.encode() + content + b"\r\n")
    return b"".join(parts) + b"--edge--\r\n"


Start = Callable[..., Client]
"""Start a server with limits, a token and names; see ``conftest.py``."""
