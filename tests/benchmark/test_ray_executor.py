"""The executor on Ray. What needs a cluster is marked; its clusters listen on the loopback address alone."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from biomedcoop.benchmark.executor import WorkerLost
from biomedcoop.benchmark.ray_executor import RayCluster
from biomedcoop.errors import UserError

from .conftest import Run, lines_of, protocol

cluster = pytest.mark.cluster


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder: Ray keeps the token of its clusters there."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_without_ray_one_line_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("biomedcoop.benchmark.ray_executor.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"not installed; run: pip install 'biomedcoop\[ray\]'"):
        run(protocol(), executor="ray")


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("head-node", "is no address; give HOST:PORT, auto or local"),
        ("head-node:port", "is no address"),
        ("127.0.0.1:{port}", "cannot connect to the Ray cluster at 127.0.0.1:.*: connection refused; start it with"),
    ],
)
def test_an_address_without_a_cluster_is_one_line(address: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("biomedcoop.benchmark.ray_executor.find_spec", lambda _: True)
    with pytest.raises(UserError, match=line), RayCluster(address.format(port=_free_port())):
        pass


def test_options_that_belong_to_the_other_executor_are_refused(run: Run) -> None:
    with pytest.raises(UserError, match="jobs is for processes on this machine"):
        run(protocol(), executor="ray", jobs=2)
    with pytest.raises(UserError, match="address is that of a Ray cluster"):
        run(protocol(), executor="local", address="auto")
    with pytest.raises(UserError, match="executor 'slurm' is not known; choose local or ray"):
        run(protocol(), executor="slurm")


@cluster
def test_a_killed_process_costs_only_its_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Items that wait to be killed, unless they were before; another kills every process that works on it."""
    waits = [
        f"{_MARK.format(tmp_path / str(number))} or ({number}, __import__('time').sleep(60))" for number in range(3)
    ]
    monkeypatch.setenv("BIOMEDCOOP_CACHE", str(tmp_path))
    deadly = "__import__('os').kill(__import__('os').getpid(), 9)"
    with RayCluster("local") as ray:
        assert ray.slots >= 1
        Thread(target=_kill_marked, args=([tmp_path / str(number) for number in range(3)],)).start()
        begin = time.monotonic()
        results = dict(ray.map(eval, ["1 + 1", *waits, deadly, "1 / 0", "2 + 2"]))
        assert time.monotonic() - begin < 50
        assert [results[item] for item in waits] == ["again"] * 3
        assert (results["1 + 1"], results["2 + 2"]) == (2, 4)
        assert isinstance(results[deadly], WorkerLost)
        assert "division by zero" in str(results["1 / 0"])
        assert list(ray.map(eval, [])) == []
        (node,) = ray.everywhere(os.getpid).values()
        assert isinstance(node, int)
        assert _outside_loopback(tmp_path) == []


_MARK = (
    "(lambda file: 'again' if file.exists() else file.with_suffix('.new').write_text(str(__import__('os').getpid())) and "
    "file.with_suffix('.new').replace(file) and None)(__import__('pathlib').Path('{}'))"
)
"""An expression: "again" if the file exists, else None; the file then holds the number of the process."""


def _kill_marked(files: list[Path]) -> None:
    """Kill each process that leaves its number in one of the files."""
    while files:
        marked = _wait_for(lambda: [file for file in files if file.exists()])[0]
        os.kill(int(marked.read_text()), signal.SIGKILL)
        files.remove(marked)


@cluster
def test_a_benchmark_survives_killed_workers_and_a_lost_cluster(
    run: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes with a store of their own; a worker is killed, then the whole cluster; a second cluster does the rest."""
    asked = protocol(variants=[{"name": "long", "method": "coop", "settings": {"epochs": 300}}])
    run(asked, "local")
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text("5" * 64)  # the cluster asks for it
    monkeypatch.setenv("BIOMEDCOOP_CACHE", str(tmp_path / "here"))
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
    monkeypatch.setattr("biomedcoop.benchmark.travel.SHARD", 16)
    there, results = tmp_path / "there", tmp_path / "out" / "results.jsonl"
    with _cluster(there) as (address, head):

        def kill() -> None:
            _wait_for(lambda: results.exists() and results.read_bytes())
            os.kill(_wait_for(lambda: _workers(there))[0], signal.SIGKILL)
            _wait_for(lambda: results.read_bytes().count(b"\n") >= 5)
            os.killpg(head.pid, signal.SIGKILL)

        killing = Thread(target=kill)
        killing.start()
        with pytest.raises(UserError, match=f"lost the Ray cluster at {address}: .*the same command continues"):
            run(asked, executor="ray", address=address)
        killing.join()
    assert 5 <= len(lines_of(tmp_path / "out")) < 13
    with _cluster(there) as (address, _):
        summary = run(asked, executor="ray", address=address)
    assert (summary.done, summary.failed) == (13, 0)
    assert lines_of(tmp_path / "out") == lines_of(tmp_path / "local")


def _wait_for(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 100
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


@contextmanager
def _cluster(cache: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A cluster of one node with two cores and its own cache folder: (address, the process whose group it is)."""
    port = _free_port()
    place = tempfile.mkdtemp(prefix="ray")  # paths of sockets must be short
    environment = {
        **os.environ,
        "BIOMEDCOOP_CACHE": str(cache),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    words = ["start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}", f"--temp-dir={place}"]
    words += ["--num-cpus=2", "--include-dashboard=false", "--object-store-memory=100000000"]
    head = subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", *words],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
            _wait_for(lambda: _listens(port))
            yield f"127.0.0.1:{port}", head
    finally:
        head.terminate()
        try:
            head.wait(20)
        finally:
            for process in _processes(cache):
                os.kill(process, signal.SIGKILL)
            shutil.rmtree(place, ignore_errors=True)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _processes(cache: Path) -> list[int]:
    """Processes that use a cache folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"BIOMEDCOOP_CACHE={cache}\0".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def _outside_loopback(cache: Path) -> list[str]:
    """Addresses outside the loopback interface that processes with a cache folder listen on, as the kernel writes them."""
    sockets = set()
    for process in _processes(cache):
        for link in Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(OSError):
                sockets.add(str(link.readlink()))
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in sockets:
                found.append(local)
    assert found, "the cluster listens somewhere"
    return [local for local in found if not local.partition(":")[0].endswith("0100007F")]


def _workers(cache: Path) -> list[int]:
    """Processes of a cluster that are working on a task."""
    return [p for p in _processes(cache) if Path(f"/proc/{p}/cmdline").read_bytes().startswith(b"ray::_call")]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
