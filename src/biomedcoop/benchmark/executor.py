"""Executors: they run work in other processes; no other module of the benchmark starts processes.

A worker is a plain child process that reads its work from a pipe (``messages.py``).
It needs no guard in the user's script, hears no Ctrl-C, and
ends when the pipe closes, even if this process is killed. A worker that is killed costs only the item it was working on.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from threading import Lock, Thread
from typing import Any, BinaryIO, Protocol, TypeVar

from biomedcoop.benchmark.messages import receive, send
from biomedcoop.errors import Note, UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

_SERVE = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {} import serve; serve(sys.stdin.buffer)"


class Executor(Protocol):
    """Runs a function on many items, in any order and on any machine."""

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result | WorkerLost]]:
        """Yield each item and its result as soon as it is ready; closing the iterator ends the work.

        Args:
            work: a function of this package that raises nothing; ``messages.py`` says what items and results can be.
            items: items of work, started in this order.
        """
        ...


class WorkerLost(UserError):
    """The process that worked on an item ended from outside."""


@dataclass(frozen=True)
class LocalProcesses:
    """Runs work in processes on this machine.

    Attributes:
        jobs: number of parallel processes.
    """

    jobs: int

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result | WorkerLost]]:
        """See :class:`Executor`."""
        waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for item in items:
            waiting.put(item)
        count = waiting.qsize()
        ready: queue.SimpleQueue[Any] = queue.SimpleQueue()
        workers = [_Worker(work) for _ in range(min(self.jobs, count))]
        threads = [Thread(target=worker.follow, args=(waiting, ready), daemon=True) for worker in workers]
        try:
            for thread in threads:
                thread.start()
            for _ in range(count):
                yield ready.get()
        finally:
            with contextlib.suppress(queue.Empty):
                while True:
                    waiting.get_nowait()
            for worker in workers:
                worker.end()
            for worker, thread in zip(workers, threads, strict=True):
                thread.join()
                worker.close()


class _Worker:
    """One child process at a time, and the pipes to it."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self.work = work
        self.ended, self.lock = False, Lock()
        self.process = start_child(__name__)

    def follow(self, waiting: queue.SimpleQueue[Any], ready: queue.SimpleQueue[Any]) -> None:
        """Work on items until none is left."""
        while True:
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                ready.put((item, self._ask(item)))
            except (OSError, EOFError):
                with self.lock:
                    if self.ended:
                        return
                    ready.put((item, self._lost()))
                    self.process = start_child(__name__)

    def _ask(self, item: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        send(self.process.stdin, (self.work, item))
        return receive(self.process.stdout)

    def _lost(self) -> WorkerLost:
        status = self.process.wait()
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        self.close()
        return WorkerLost(f"its worker process ended {how}, perhaps for lack of memory; try fewer --jobs")

    def end(self) -> None:
        """End the process, whatever it does."""
        with self.lock:
            self.ended = True
            self.process.kill()  # a worker whose pipe closes would first finish its item
            self.process.wait()

    def close(self) -> None:
        """Close the pipes of a process that has ended."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def start_child(module: str, **more: Any) -> subprocess.Popen[bytes]:
    """Start a process that runs ``serve`` of a module on a pipe of requests.

    Args:
        more: further arguments of ``subprocess.Popen``.
    """
    return subprocess.Popen(
        [sys.executable, "-c", _SERVE.format(module), json.dumps(sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Ctrl-C at the terminal goes to this process alone, which then ends its children
        start_new_session=True,
        **more,
    )


def pipe_of_answers() -> BinaryIO:
    """The pipe to the process that started this one; the standard output, which libraries print to, becomes that of errors."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def serve(requests: BinaryIO) -> None:
    """The loop of a worker process: do what is asked for until the pipe closes."""
    Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    warnings.simplefilter("ignore", Note)  # said before the work
    answers = pipe_of_answers()
    with contextlib.suppress(EOFError):
        while True:
            work, item = receive(requests)
            try:
                send(answers, work(item))
            except BrokenPipeError:
                os._exit(0)


def _end_with(parent: int) -> None:
    """End this process soon after the one that started it."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)
