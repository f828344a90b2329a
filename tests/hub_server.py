"""A server on this machine that speaks the Hugging Face hub's protocol, for tests of downloads."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "1234567890abcdef1234567890abcdef12345678"
PAGE = b"<!DOCTYPE html>\n<html><body>Sign in to the network of the hospital.</body></html>"


class Hub(ThreadingHTTPServer):
    """One repository of the hub.

    Attributes:
        repository: path of the repository, e.g. "owner/model" or "datasets/owner/data".
        files: content by name in the repository, with folders.
        large: names of the files in large file storage: their address leads to another host, and their checksum is a SHA-256.
        commit: of the branch "main".
        trouble: "METHOD file" -> what goes wrong, with the file's name without folders.
        token: if set, requests without it are refused.
        asked: the requests, each "METHOD file"; ``ranges``: the Range headers of the GETs; ``told``: the tokens that the other host
            was told, which must be none.
    """

    daemon_threads = True

    def __init__(self, repository: str, files: dict[str, bytes], large: Collection[str] = ()) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.repository, self.files, self.large = repository, files, large
        self.commit = COMMIT
        self.trouble: dict[str, str] = {}
        self.token = ""
        self.asked: list[str] = []
        self.ranges: list[str] = []
        self.told: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def store(self) -> str:
        """Address of the large files: another host, as those of the hub are."""
        return f"http://localhost:{self.server_port}/store"

    def checksum(self, file: str) -> str:
        content = self.files[file]
        if file in self.large:
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # as Git makes it


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        hub = self.server
        path = re.sub("^http://[^/]+", "", self.path)  # a whole address, where this server is used as a proxy
        at = re.fullmatch(rf"/{re.escape(hub.repository)}/resolve/([^/]+)/(.+)", path)
        file = at[2] if at else path.removeprefix("/store/")
        base = file.rpartition("/")[2]
        request = f"{self.command} {base}"
        hub.asked.append(request) if at or file not in hub.files else None
        trouble = hub.trouble.get(request)
        if trouble == "hang up":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif trouble == "500":
            self.send_error(500)
        elif trouble == "page":
            self.reply(200, {"Content-Type": "text/html"}, PAGE if body else b"", len(PAGE))
        elif at and hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self.reply(401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to the dataset is restricted"})
        elif at and at[1] not in ("main", hub.commit):
            self.reply(404, {"X-Error-Code": "RevisionNotFound"})
        elif trouble == "404" or file not in hub.files:
            self.reply(404, {"X-Error-Code": "EntryNotFound" if at else "RepoNotFound"})
        elif at and file in hub.large:
            linked = {"X-Linked-Etag": f'"{hub.checksum(file)}"', "X-Linked-Size": str(len(hub.files[file]))}
            self.reply(302, {"X-Repo-Commit": hub.commit, "Location": f"{hub.store}/{file}", **linked})
        else:
            self.send_file(file, body, trouble)

    def send_file(self, file: str, body: bool, trouble: str | None) -> None:
        content = self.server.files[file]
        start = int(re.match(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])  # type: ignore[index]
        if body:
            self.server.ranges.append(self.headers.get("Range", ""))
        if "/store/" in self.path and (token := self.headers.get("Authorization")):
            self.server.told.append(token)
        headers = {
            "ETag": f'"{self.server.checksum(file)}"',
            "X-Repo-Commit": self.server.commit,
            "Accept-Ranges": "bytes",
        }
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if trouble == "wrong bytes":
            content = bytes(len(content))
        sent = content[start:] if trouble not in ("cut", "stall") else content[start : (start + len(content)) // 2]
        self.reply(206 if start else 200, headers, sent if body else b"", len(content) - start)
        if body and trouble == "cut":
            self.close_connection = True
        elif body and trouble == "stall":
            self.wfile.flush()
            threading.Event().wait(60)

    def reply(self, status: int, headers: dict[str, str], content: bytes = b"", length: int = 0) -> None:
        """Send ``content``, and say that it is ``length`` bytes long."""
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve until the block ends."""
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
