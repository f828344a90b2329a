"""A server on this machine that speaks the Hugging Face hub's protocol, for tests of downloads and uploads."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import socket
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from biomedcoop.hub import client

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

    @property
    def answers(self) -> type[Answer]:
        return Answer

    def __init__(self, repository: str, files: dict[str, bytes], large: Collection[str] = ()) -> None:
        super().__init__(("127.0.0.1", 0), self.answers)
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
        elif at and not self.may_read():
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

    def may_read(self) -> bool:
        return not self.server.token or self.headers.get("Authorization") == f"Bearer {self.server.token}"

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


class OpenHub(Hub):
    """A hub that takes one repository: it is made, written in commits, and read at each of them.

    Attributes:
        exists, public: of the repository.
        owners: names that the token may write under.
        history: the files of each commit.
        bodies: what clients have sent, each with its address.
    """

    def __init__(self, repository: str, token: str) -> None:
        super().__init__(repository, {}, large=set())
        self.token, self.exists, self.public = token, False, False
        self.owners = {repository.partition("/")[0]}
        self.history: dict[str, dict[str, bytes]] = {}
        self.stored: dict[str, bytes] = {}
        self.bodies: list[tuple[str, bytes]] = []

    @property
    def answers(self) -> type[Answer]:
        return OpenAnswer

    def make(self, files: dict[str, bytes] | None = None) -> None:
        """Make the repository; its first commit holds what the hub itself writes, and ``files``."""
        self.exists = True
        self.commit_files({".gitattributes": b"*.safetensors filter=lfs\n", **(files or {})})

    def commit_files(self, files: dict[str, bytes]) -> None:
        self.files = {**self.files, **files}
        self.large = {name for name in self.files if name.endswith(".safetensors")}
        self.commit = hashlib.sha1(f"{self.commit} {sorted(self.files.items())}".encode()).hexdigest()
        self.history[self.commit] = self.files


class OpenAnswer(Answer):
    server: OpenHub

    def may_read(self) -> bool:
        return self.server.public or super().may_read()

    def answer(self, body: bool) -> None:
        hub = self.server
        at = re.fullmatch(f"/{re.escape(hub.repository)}/resolve/([^/]+)/(.+)", self.path)
        unseen = (404 if super().may_read() else 401), {"X-Error-Code": "RepoNotFound"}
        if self.path == f"/api/models/{hub.repository}":
            if not self.told_to_fail("GET model"):
                self.describe() if hub.exists and self.may_read() else self.reply(*unseen)
        elif at and not (hub.exists and self.may_read()):
            self.reply(*unseen)
        elif at and at[1] in hub.history and at[1] != hub.commit:
            content = hub.history[at[1]][at[2]]
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            self.reply(200, {"ETag": f'"{git}"', "X-Repo-Commit": at[1]}, content if body else b"", len(content))
        else:
            super().answer(body)

    def describe(self) -> None:
        hub = self.server
        names = [{"rfilename": name} for name in hub.files]
        self.send_json({"id": hub.repository, "sha": hub.commit, "private": not hub.public, "siblings": names})

    def do_POST(self) -> None:
        hub, repository = self.server, self.server.repository
        steps = {
            "/api/repos/create": self.create,
            "/api/validate-yaml": self.validate,
            f"/api/models/{repository}/preupload/main": self.preupload,
            f"/{repository}.git/info/lfs/objects/batch": self.batch,
            f"/{repository}.git/info/lfs/verify": self.verify,
            f"/api/models/{repository}/commit/main": self.commit,
        }
        content = self.rfile.read(int(self.headers["Content-Length"]))
        hub.bodies.append((self.path, content))
        step = steps.get(self.path)
        hub.asked.append(f"POST {step.__name__ if step else self.path}")
        if step is None:
            self.reply(404, {"X-Error-Code": "RepoNotFound"})
        elif not self.told_to_fail(f"POST {step.__name__}"):
            if self.headers.get("Authorization") != f"Bearer {hub.token}":
                self.send_json({"error": "Invalid username or password."}, 401)
            else:
                step(content)

    def do_PUT(self) -> None:
        hub, oid = self.server, self.path.removeprefix("/store/upload/")
        hub.asked.append("PUT object")
        if token := self.headers.get("Authorization"):
            hub.told.append(token)
        length = int(self.headers["Content-Length"])
        if hub.trouble.get("PUT object") == "cut":
            self.rfile.read(length // 2)
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        content = self.rfile.read(length)
        hub.bodies.append((self.path, content))
        if not self.told_to_fail("PUT object"):
            assert hashlib.sha256(content).hexdigest() == oid
            hub.stored[oid] = content
            self.reply(200, {})

    def told_to_fail(self, request: str) -> bool:
        trouble = self.server.trouble.get(request)
        if trouble == "hang up":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif trouble == "page":
            self.reply(200, {"Content-Type": "text/html"}, PAGE, len(PAGE))
        elif trouble == "404":
            self.reply(404, {"X-Error-Code": "RepoNotFound"})
        elif trouble is not None:
            self.send_json({"error": f"told to by {self.headers.get('Authorization')}"}, int(trouble))
        return trouble is not None

    def send_json(self, value: Any, status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.reply(status, {"Content-Type": "application/json"}, content, len(content))

    def create(self, content: bytes) -> None:
        hub, asked = self.server, json.loads(content)
        if asked["organization"] not in hub.owners:
            self.send_json({"error": "You do not have the rights to create a model there."}, 403)
        elif hub.exists:
            there = f"{hub.address}/{hub.repository}"
            self.send_json({"error": "You already created this model repo", "url": there}, 409)
        else:
            # versions of the client say it in one way or the other
            hub.public = not (asked.get("visibility") == "private" or asked.get("private"))
            hub.make()
            self.send_json({"url": f"{hub.address}/{hub.repository}"})

    def validate(self, content: bytes) -> None:
        faults = card_faults(json.loads(content)["content"])
        self.send_json({"errors": [{"message": words} for words in faults], "warnings": []}, 400 if faults else 200)

    def preupload(self, content: bytes) -> None:
        files = [file["path"] for file in json.loads(content)["files"]]
        modes = [{"path": path, "uploadMode": "lfs" if path.endswith(".safetensors") else "regular"} for path in files]
        self.send_json({"files": [{**mode, "shouldIgnore": False} for mode in modes]})

    def batch(self, content: bytes) -> None:
        hub = self.server
        objects = [{key: one[key] for key in ("oid", "size")} for one in json.loads(content)["objects"]]
        for one in objects:
            if one["oid"] not in hub.stored:
                put = {"href": f"{hub.store}/upload/{one['oid']}"}
                one["actions"] = {
                    "upload": put,
                    "verify": {"href": f"{hub.address}/{hub.repository}.git/info/lfs/verify"},
                }
        self.send_json({"transfer": "basic", "objects": objects})

    def verify(self, content: bytes) -> None:
        stored = self.server.stored.get(json.loads(content)["oid"], b"")
        self.send_json({}, 200 if len(stored) == json.loads(content)["size"] else 422)

    def commit(self, content: bytes) -> None:
        hub = self.server
        head, *rest = (json.loads(line) for line in content.splitlines())
        if head["value"].get("parentCommit") not in (None, hub.commit):
            self.send_json({"error": "A commit has happened since."}, 412)
            return
        files = {}
        for line in rest:
            value = line["value"]
            files[value["path"]] = {
                "file": lambda value=value: base64.b64decode(value["content"]),
                "lfsFile": lambda value=value: hub.stored[value["oid"]],
            }[line["key"]]()
        hub.commit_files(files)
        self.send_json({"commitUrl": f"{hub.address}/{hub.repository}/commit/{hub.commit}", "commitOid": hub.commit})


def card_faults(card: str) -> list[str]:
    """What the hub's validator finds in the header of a model card, as far as its specification states types and values."""
    found = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    if found is None:
        return ["there is no header"]
    header = yaml.safe_load(found[1])
    known = {
        "library_name",
        "pipeline_tag",
        "license",
        "license_name",
        "license_link",
        "base_model",
        "tags",
        "datasets",
        "metrics",
    }
    faults = [f"{key} is no field" for key in header.keys() - known - {"model-index", "language"}]
    for key in ("tags", "datasets", "metrics"):
        if not all(isinstance(word, str) for word in header.get(key, [])):
            faults.append(f"{key} must be a list of texts")
    if header.get("license") not in ("apache-2.0", "cc-by-sa-4.0", "mit", "other"):
        faults.append("license must be one of the list")
    if header.get("license") == "other" and not re.fullmatch("[a-z0-9-.]+", header.get("license_name", "")):
        faults.append("license_name must be in small letters, digits, dashes and dots")
    for model in header.get("model-index", []):
        for result in model["results"]:
            faults += [
                f"{part}.type must be a text"
                for part in ("task", "dataset")
                if not isinstance(result[part]["type"], str)
            ]
            faults += [
                "metrics.value must be a number" for one in result["metrics"] if not isinstance(one["value"], float)
            ]
    return faults


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


@contextmanager
def open_hub(repository: str, token: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenHub]:
    """A hub that takes a repository, a user who is logged in, and empty caches in ``place``."""
    for name in [name for name in os.environ if "proxy" in name.lower() or name.startswith("HF_")]:
        monkeypatch.delenv(name)
    constants = client().constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(place / "hf" / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(place / "hf" / "token"))
    monkeypatch.setenv("BIOMEDCOOP_CACHE", str(place / "cache"))
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the hub's client waits between its attempts
    hub = OpenHub(repository, token)
    with serving(hub):
        set_endpoint(hub.address, monkeypatch)
        yield hub


def set_endpoint(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set $HF_ENDPOINT as where it is set before Python starts; later, the hub's client does not look at it again."""
    constants = client().constants
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
