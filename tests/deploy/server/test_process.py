"""The command as a process: its start, its stop, a changed folder, a killed server."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import biomedcoop as bc
from deploy.server.client import Client, Reply

pytestmark = pytest.mark.slow

GUIDE = Path(__file__).parents[3] / "docs" / "serve.md"

Served = Callable[..., tuple[Client, "subprocess.Popen[str]"]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "run"
    bc.fit(bc.load_dataset("simulated:breast-ultrasound?train=2&val=0&test=1"), "simpleshot", shots=2).save(folder)
    return folder


@pytest.fixture
def served(model: Path) -> Iterator[Served]:
    running: list[subprocess.Popen[str]] = []

    def begin(*options: str) -> tuple[Client, subprocess.Popen[str]]:
        command = [sys.executable, "-m", "biomedcoop", "serve", str(model), "--port", "0", *options]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"listening on http://127\.0\.0\.1:(\d+)", line):
                return Client(int(found[1])), process
        raise AssertionError("the server has not started")

    yield begin
    for process in running:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def in_flight(client: Client, discs: Path) -> tuple[threading.Thread, list[Reply | OSError]]:
    """A request of many images that has begun."""
    replies: list[Reply | OSError] = []
    files = sorted(discs.rglob("*.png"))[:60]

    def ask() -> None:
        try:
            replies.append(client.send("/predict", *files))
        except OSError as error:
            replies.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while b"biomedcoop_requests_inside 1" not in client.get("/metrics").content:
        time.sleep(0.005)
    return thread, replies


def test_a_stop_lets_requests_end(served: Served, discs: Path) -> None:
    client, process = served()
    thread, replies = in_flight(client, discs)
    process.send_signal(signal.SIGTERM)
    thread.join()
    (reply,) = replies
    assert isinstance(reply, Reply)
    assert (reply.status, len(reply.json["predictions"])) == (200, 60)
    assert process.wait(20) == 0
    assert process.stderr is not None
    assert process.stderr.read().strip() == "stopped; all requests that had begun are answered"


def test_a_start_without_a_model_is_said() -> None:
    command = [sys.executable, "-m", "biomedcoop", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().strip() == "no model is served yet; the page can train one"
        (port,) = re.findall(r"listening on http://127\.0\.0\.1:(\d+)", process.stderr.readline())
        client = Client(int(port))
        client.ask("POST", "/train", b"Plantedname", Content_Type="multipart/form-data; boundary=other")
        client.get("/pages/%0aPlantedname")
        process.send_signal(signal.SIGTERM)
        assert process.stderr.read() == "stopped; all requests that had begun are answered\n"


def test_a_stop_while_models_load(model: Path, tmp_path: Path) -> None:
    """Nothing answers yet, so that no probe waits."""
    pipe = tmp_path / "run"
    shutil.copytree(model, pipe)
    (pipe / "classifier.json").unlink()
    os.mkfifo(pipe / "classifier.json")  # its reading waits
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "biomedcoop", "serve", str(pipe), "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        with (pipe / "classifier.json").open("wb"):  # opens when the server reads
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port))
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == "stopped before it began to answer requests\n"


def test_a_killed_server_gives_no_half_answer(served: Served, discs: Path) -> None:
    client, process = served()
    whole = client.send("/predict", *sorted(discs.rglob("*.png"))[:60])
    thread, replies = in_flight(client, discs)
    process.kill()
    thread.join()
    (reply,) = replies
    assert isinstance(reply, OSError) or reply.content == whole.content
    assert whole.status == 200
    again, _ = served()
    assert again.send("/predict", *sorted(discs.rglob("*.png"))[:60]).content == whole.content


def test_a_changed_folder_is_noticed(served: Served, model: Path, discs: Path, tmp_path: Path) -> None:
    scan = min(discs.rglob("*.png"))
    client, _ = served()
    before = client.send("/predict", scan).content
    assert client.get("/health").json["status"] == "ok"
    kept = tmp_path / "kept"
    shutil.copytree(model, kept)
    try:
        bc.fit(bc.load_dataset("simulated:kidney-ct?train=2&val=0&test=1"), "simpleshot", shots=2).save(
            model, overwrite=True
        )
        assert client.get("/health").json == {
            "status": "changed",
            "version": bc.__version__,
            "changed_on_disk": ["run"],
        }
        assert client.send("/predict", scan).content == before
        shutil.rmtree(model)
        assert client.get("/health").json["status"] == "changed"
        assert client.send("/predict", scan).content == before
    finally:
        shutil.rmtree(model, ignore_errors=True)
        kept.rename(model)
    assert client.get("/health").json["status"] == "ok"


def test_the_commands_of_the_guide(served: Served, discs: Path, tmp_path: Path) -> None:
    for number, scan in enumerate(sorted(discs.rglob("*.png"))[:2], start=1):
        shutil.copy(scan, tmp_path / f"scan{number}.png")
    guide = GUIDE.read_text(encoding="utf-8")
    open_part, closed_part = guide.split("## Beyond this machine")
    (make_token,) = re.findall(r"^\$ (openssl .+)$", closed_part, re.MULTILINE)
    subprocess.run(make_token, shell=True, check=True, cwd=tmp_path)
    done = 0
    for part, options in ((open_part, ()), (closed_part, ("--token-file", str(tmp_path / "token")))):
        client, _ = served(*options)
        for command in re.findall(r"^\$ (curl .+)$", part, re.MULTILINE):
            asked = command.replace("http://127.0.0.1:8000", client.url).replace("curl", "curl -sSf", 1)
            ran = subprocess.run(asked, shell=True, check=True, cwd=tmp_path, capture_output=True, text=True)
            assert '"error"' not in ran.stdout
            assert ran.stdout
            done += 1
    assert done == 7
