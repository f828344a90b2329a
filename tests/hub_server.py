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


class Hub(ThreadingHTTPServer):
    """One repository of the hub.

    Attributes:
        repository: path of the repository, e.g. "owner/model" or "datasets/owner/data".
        large: names of the files in large file storage: their address leads to another one, and their checksum is a SHA-256.
        trouble: "METHOD file" -> what goes wrong, with the file's name without folders.
        token: if set, requests without it are refused.
        asked: the requests, each "METHOD file"; ``ranges``: the Range headers of the GETs.
    """

    daemon_threads = True

    def __init__(self, repository: str, files: dict[str, bytes], large: Collection[str] = ()) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.repository, self.files, self.large = repository, files, large
        self.trouble: dict[str, str] = {}
        self.token = ""
        self.asked: list[str] = []
        self.ranges: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

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
        hub, here = self.server, f"/{self.server.repository}/resolve/main/"
        at_hub = self.path.startswith(here)
        file = self.path.removeprefix(here).removeprefix("/store/")
        request = f"{self.command} {file.rpartition('/')[2]}"
        hub.asked.append(request) if at_hub or file not in hub.files else None
        trouble = hub.trouble.get(request)
        known = file in hub.files
        if trouble == "hang up":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif trouble == "500":
            self.send_error(500)
        elif at_hub and hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self.empty(401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to the dataset is restricted"})
        elif trouble == "404" or not known:
            self.empty(404, {"X-Error-Code": "EntryNotFound" if at_hub else "RepoNotFound"})
        elif at_hub and file in hub.large:
            linked = {"X-Linked-Etag": f'"{hub.checksum(file)}"', "X-Linked-Size": str(len(hub.files[file]))}
            self.empty(302, {"X-Repo-Commit": COMMIT, "Location": f"{hub.address}/store/{file}", **linked})
        else:
            self.send_file(file, body, trouble)

    def send_file(self, file: str, body: bool, trouble: str | None) -> None:
        content = self.server.files[file]
        start = int(re.match(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])  # type: ignore[index]
        if body:
            self.server.ranges.append(self.headers.get("Range", ""))
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", f'"{self.server.checksum(file)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if trouble == "wrong bytes":
            content = bytes(len(content))
        if body and trouble == "cut":
            self.wfile.write(content[start : (start + len(content)) // 2])
            self.close_connection = True
        elif body and trouble == "stall":
            self.wfile.write(content[start : (start + len(content)) // 2])
            self.wfile.flush()
            threading.Event().wait(60)
        elif body:
            self.wfile.write(content[start:])

    def empty(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()

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
