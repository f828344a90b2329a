"""The number of processor cores for a piece of work, and the torch settings that enforce this number.

Two facts decide the number. First, threads that share an operation wait for each other at its end, thousands of times in a
training. On a machine with other work, one of the threads is often not running, and each wait takes a time slice: the training then
takes a hundred times as long. Second, an operation of a small tower ends before a second thread has helped much. Small work
therefore runs on one core. Larger work (a large tower, many classes, several runs in one pass) shares its operations among cores.
The threads of larger work stop spinning while they wait as soon as other processes need the cores.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from threading import Event, Lock, Thread

from biomedcoop.lazy import torch

PER_CORE = 2**27
"""Multiply-adds of a pass, or of a training step, for each core that shares its operations."""

LOOK_EVERY, LOOKS = 0.05, 4
"""Seconds between two checks for other processes that need the cores, and consecutive checks that must find one."""

MISSING = 0.3
"""Processor time, in cores, that spinning threads lose to another process that is always busy."""

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")

_setting, _starting = Lock(), Lock()
_resting: Thread | None = None


def wait_passively() -> None:
    """Let threads that wait for each other sleep instead of keeping their core busy; call this before torch is loaded.

    Only the package's own command calls this, because the setting holds for the whole process: the OpenMP runtime reads the
    environment once, when it is loaded. A value that the user has set is kept.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def available_cores() -> int:
    """Number of cores that this process may use; its affinity, the quota of its control groups and ``OMP_NUM_THREADS`` limit it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if (quota := _quota()) is not None:
        cores = min(cores, max(1, int(quota)))
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(cores, int(first)) if first.isdecimal() and int(first) else cores


def torch_cores() -> int:
    """Number of cores for torch's work from this thread: the available ones, at most ``torch.get_num_threads()``."""
    return min(available_cores(), torch.get_num_threads())


def threads_for(macs: int, runs: int = 1) -> int:
    """Number of threads that share the operations of a pass.

    Args:
        macs: multiply-adds of the pass; each ``PER_CORE`` of them is worth a thread.
        runs: runs that the pass computes together; each is worth a thread.
    """
    return min(torch_cores(), max(runs, macs // PER_CORE)) if macs else 1


@contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """Let torch share the operations of this Python thread among ``n`` threads; other Python threads keep their number."""
    before = torch.get_num_threads()
    set_torch_threads(n)
    try:
        with _room_for_others(n):
            yield
    finally:
        set_torch_threads(before)


def set_torch_threads(n: int) -> None:
    """Set the number of :func:`torch_threads` for the rest of this Python thread's life."""
    # the question also fixes this thread's number, so that later changes do not reach it
    if torch.get_num_threads() == n:
        return
    if (set_own := _setter_of_one_thread()) is not None:
        set_own(n)
        return
    with _setting:
        # torch sets the number for this thread and for future threads; another thread restores it for future ones
        known, changed = Event(), Event()

        def keep() -> None:
            default = torch.get_num_threads()
            known.set()
            changed.wait()
            torch.set_num_threads(default)

        keeper = Thread(target=keep, daemon=True)
        keeper.start()
        known.wait()
        torch.set_num_threads(n)
        changed.set()
        keeper.join()


@cache
def _setter_of_one_thread() -> Callable[[int], None] | None:
    """Sets the number of the calling thread and touches no other, by the libraries that torch itself calls; None without them."""
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        of_openmp = library.omp_set_num_threads
        of_mkl = library.MKL_Set_Num_Threads_Local if torch.backends.mkl.is_available() else None  # type: ignore[no-untyped-call]
    except (OSError, AttributeError):
        return None

    def set_own(n: int) -> None:
        of_openmp(n)
        if of_mkl is not None:
            of_mkl(n)

    return set_own


@contextmanager
def _room_for_others(n: int) -> Iterator[None]:
    """End the spinning of ``n`` threads that share operations once other processes need their cores.

    Spinning threads use all the time of ``n`` cores, unless other processes take some of it. On an idle machine spinning is the
    faster way to wait: it saves a fifth of a training of several runs.
    """
    if n == 1 or _resting is not None:
        yield
        return
    done = Event()

    def look() -> None:
        wall, used, in_a_row = time.monotonic(), time.process_time(), 0
        while in_a_row < LOOKS:
            if done.wait(LOOK_EVERY):
                return
            now, used_now = time.monotonic(), time.process_time()
            in_a_row = in_a_row + 1 if used_now - used < (n - MISSING) * (now - wall) else 0
            wall, used = now, used_now
        _rest_a_team()

    watcher = Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _rest_a_team() -> None:
    """Keep one pair of torch's threads at rest, so that waiting threads of other pairs sleep soon.

    GNU's OpenMP runtime lets a waiting thread spin for a millisecond or longer while the runtime has at most as many threads as
    there are cores. The resting pair brings the number of threads above that limit. Other runtimes are not affected.
    """
    global _resting
    with _starting:
        if _resting is not None:
            return
        ready = Event()

        def rest() -> None:
            set_torch_threads(2)
            torch.ones(2**17).add_(1)  # large enough to be shared among threads, which creates the pair
            ready.set()
            Event().wait()

        _resting = Thread(target=rest, daemon=True)
        _resting.start()
        ready.wait()


def _quota() -> float | None:
    """Processor time, in cores, that the control groups of this process and their parents allow; None without a limit.

    It is read at most once a second: a prediction of one image asks several times, and each time costs as much as its decoding.
    """
    return _read_quota(_CGROUPS, _MEMBERSHIP, int(time.monotonic()))


@lru_cache(maxsize=1)
def _read_quota(_groups: Path, _membership: Path, _second: int) -> float | None:
    try:
        lines = _MEMBERSHIP.read_text().splitlines()
    except OSError:
        return None
    limits = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        roots = (_CGROUPS / controllers, _CGROUPS / "cpu") if controllers else (_CGROUPS, _CGROUPS / "unified")
        for root in roots:
            # inside a container the path is the host's, and the container's own group is the root
            for group in {root, *(root / p for p in (Path(path.lstrip("/")), *Path(path.lstrip("/")).parents))}:
                limits += _limit(group)
    return min(limits, default=None)


def _limit(group: Path) -> list[float]:
    """[quota / period] of one control group; [] without a limit."""
    try:
        if (both := group / "cpu.max").is_file():
            quota, period = both.read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text().strip()
            period = (group / "cpu.cfs_period_us").read_text().strip()
        return [int(quota) / int(period)] if quota.isdecimal() and int(quota) and int(period) else []
    except (OSError, ValueError):
        return []
