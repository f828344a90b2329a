"""Cores that may be used, and torch's number of threads: changed where work is done, and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Thread

import pytest
import torch

from biomedcoop import threads


def python(code: str, **environment: str) -> str:
    """What a fresh interpreter prints; a variable that is given empty is not set there."""
    env = {key: value for key, value in {**os.environ, **environment}.items() if value or key not in environment}
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, timeout=120
    ).stdout


def number_in_new_thread() -> int:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


@pytest.fixture
def three_threads() -> object:
    """A user's own choice for this process."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


# -- how many cores there are


@pytest.fixture
def control_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree of control groups without limits, and 64 cores."""
    monkeypatch.setattr(threads, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(threads, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return tmp_path


def limit(root: Path, group: str, member: str, **files: str) -> int:
    (root / "membership").write_text(member + "\n")
    folder = root / "cgroup" / group
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")
    threads._read_quota.cache_clear()  # it is kept for a second
    return threads.available_cores()


def test_no_control_group_no_limit(control_groups: Path) -> None:
    assert threads.available_cores() == 64
    assert limit(control_groups, "", "0::/", cpu__max="max 100000") == 64


@pytest.mark.parametrize(("quota", "cores"), [("100000", 1), ("50000", 1), ("150000", 1), ("400000", 4)])
def test_a_container_limited_to_a_quota(control_groups: Path, quota: str, cores: int) -> None:
    assert limit(control_groups, "", "0::/", cpu__max=f"{quota} 100000") == cores


def test_the_least_of_nested_quotas_counts(control_groups: Path) -> None:
    limit(control_groups, "slice/job", "0::/slice/job", cpu__max="800000 100000")
    assert limit(control_groups, "slice", "0::/slice/job", cpu__max="200000 100000") == 2


def test_quotas_of_the_first_version(control_groups: Path) -> None:
    member = "5:memory:/a\n3:cpu,cpuacct:/docker/b"
    files = {"cpu__cfs_quota_us": "300000", "cpu__cfs_period_us": "100000"}
    assert limit(control_groups, "cpu,cpuacct", member, **files) == 3  # inside the container its group is the root
    files["cpu__cfs_quota_us"] = "-1"
    assert limit(control_groups, "cpu,cpuacct", member, **files) == 64


@pytest.mark.parametrize(("text", "cores"), [("2", 2), ("4,2", 4), ("100", 64), ("", 64), ("zero", 64), ("0", 64)])
def test_the_openmp_variable_limits(
    control_groups: Path, monkeypatch: pytest.MonkeyPatch, text: str, cores: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert threads.available_cores() == cores


def test_affinity_limits() -> None:
    code = (
        "import os; from biomedcoop.threads import available_cores, torch_cores\n"
        "if hasattr(os, 'sched_setaffinity'): os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "print(available_cores(), torch_cores())"
    )
    if hasattr(os, "sched_setaffinity"):
        assert python(code, OMP_NUM_THREADS="").split() == ["1", "1"]
    else:
        assert python(code, OMP_NUM_THREADS="1").split() == ["1", "1"]


# -- torch's number of threads


def test_the_number_is_this_threads_alone(three_threads: object) -> None:
    with threads.torch_threads(1):
        assert torch.get_num_threads() == 1
        assert number_in_new_thread() == 3
    assert (torch.get_num_threads(), number_in_new_thread()) == (3, 3)
    inside = []

    def fail() -> None:
        with threads.torch_threads(2):
            inside.append(torch.get_num_threads())
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    assert inside == [2]
    assert (torch.get_num_threads(), number_in_new_thread()) == (3, 3)


@pytest.mark.parametrize("own", [True, False])
def test_the_number_is_set_with_and_without_the_libraries(
    three_threads: object, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    if not own:
        monkeypatch.setattr(threads, "_setter_of_one_thread", lambda: None)
    elif sys.platform == "linux":
        assert threads._setter_of_one_thread() is not None
    found: list[int] = []

    def work() -> None:
        threads.set_torch_threads(2)
        found.append(torch.get_num_threads())

    worker = Thread(target=work)
    worker.start()
    worker.join()
    assert found == [2]
    assert (torch.get_num_threads(), number_in_new_thread()) == (3, 3)


def test_threads_of_the_user_do_not_disturb_each_other(three_threads: object) -> None:
    together, found = Barrier(8), []

    def work(number: int) -> None:
        together.wait()
        for _ in range(20):
            before = torch.get_num_threads()
            with threads.torch_threads(number):
                found.append((before, number, torch.get_num_threads()))

    workers = [Thread(target=work, args=(1 + i % 4,)) for i in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 160
    assert all(before == 3 and inside == number for before, number, inside in found)
    assert (torch.get_num_threads(), number_in_new_thread()) == (3, 3)


@pytest.mark.parametrize(
    ("products", "runs", "found"),
    [(0, 9, 1), (1, 1, 1), (2**28 - 1, 1, 1), (2**28, 1, 2), (2**30, 1, 8), (2**40, 1, 64), (1, 3, 3), (2**30, 3, 8)],
)
def test_the_number_follows_the_work(monkeypatch: pytest.MonkeyPatch, products: int, runs: int, found: int) -> None:
    monkeypatch.setattr(threads, "torch_cores", lambda: 64)
    assert threads.threads_for(products, runs) == found


# -- how they wait


@pytest.fixture
def rested(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Gets an entry when the spinning is ended; looks every 10 ms."""
    found: list[str] = []
    monkeypatch.setattr(threads, "_resting", None)
    monkeypatch.setattr(threads, "_rest_a_team", lambda: found.append("rested"))
    monkeypatch.setattr(threads, "LOOK_EVERY", 0.01)
    return found


@pytest.mark.parametrize(("others", "ends"), [(0.0, False), (0.1, False), (0.5, True)])
def test_spinning_ends_when_others_want_the_cores(
    rested: list[str], monkeypatch: pytest.MonkeyPatch, others: float, ends: bool
) -> None:
    begin = time.monotonic()
    monkeypatch.setattr(time, "process_time", lambda: (2 - others) * (time.monotonic() - begin))
    with threads.torch_threads(2):
        end = time.monotonic() + (10 if ends else 0.3)
        while not rested and time.monotonic() < end:
            time.sleep(0.01)
    assert rested == (["rested"] if ends else [])


def test_one_thread_is_not_watched(rested: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "Thread", None)
    monkeypatch.setattr(threads, "set_torch_threads", lambda n: None)
    with threads.torch_threads(1):
        pass
    assert rested == []


@pytest.mark.slow
def test_large_work_beside_a_busy_process_is_not_held_up() -> None:
    """Two threads on two cores of which a busy process wants one: without an end of the spinning this takes minutes."""
    code = (
        "import subprocess, sys, time; from biomedcoop import threads; import torch\n"
        "torch.set_num_threads(2); x = torch.ones(2**16)\n"
        "busy = [subprocess.Popen([sys.executable, '-c', 'while True: pass']) for _ in range(2)]\n"
        "try:\n"
        "    with threads.torch_threads(2):\n"
        "        end = time.monotonic() + 60\n"
        "        while threads._resting is None and time.monotonic() < end: x.add_(1)\n"
        "    print(threads._resting is not None)\n"
        "finally:\n"
        "    for other in busy: other.kill()"
    )
    assert python(code, OMP_WAIT_POLICY="", OMP_NUM_THREADS="").split() == ["True"]


# -- the environment


def test_the_command_waits_passively_before_torch_is_loaded() -> None:
    code = (
        "import os, sys, biomedcoop.cli; m = sys.modules['biomedcoop.cli.main']\n"
        "m.app = lambda *_, **__: print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)\n"
        "m.main()"
    )
    assert python(code, OMP_WAIT_POLICY="").split() == ["PASSIVE", "False"]
    assert python(code, OMP_WAIT_POLICY="ACTIVE").split() == ["ACTIVE", "False"]


@pytest.fixture(scope="module")
def of_a_user(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a program prints that trains and predicts, and predicts once more in a fork of it."""
    folder = tmp_path_factory.mktemp("user")
    code = (
        "import os; before = dict(os.environ)\n"
        "import biomedcoop as bc, torch, numpy as np\n"
        "threads, image = torch.get_num_threads(), np.zeros((40, 40), np.uint8)\n"
        "data = bc.load_dataset('simulated:breast-ultrasound?train=4&val=1&test=1')\n"
        "clf = bc.fit(data, 'biomedcoop', shots=2, settings={'epochs': 1})\n"
        "clf.predict([image, image])\n"
        "print(before == dict(os.environ), threads == torch.get_num_threads(), flush=True)\n"
        f"folder = {str(folder / 'model')!r}\n"
        "clf.save(folder)\n"
        "bc.load(folder).predict(image)\n"
        "child = os.fork() if hasattr(os, 'fork') else 0\n"
        "if not child:\n"
        "    print(len(bc.load(folder).predict(image)), flush=True)\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)"
    )
    return python(code, BIOMEDCOOP_CACHE=str(folder)).splitlines()


def test_python_users_keep_environment_and_threads(of_a_user: list[str]) -> None:
    assert of_a_user[0] == "True True"


def test_a_forked_process_can_load_and_predict(of_a_user: list[str]) -> None:
    assert of_a_user[1:] == ["1"]
