"""Executors: they run work in other processes; no other module of a study starts processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Executor(Protocol):
    """Runs a function on many items, in any order and on any machine."""

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the result of each item as soon as it is ready.

        Args:
            work: a picklable function; items and results must be picklable too.
            items: items of work, started in this order.
        """
        ...


@dataclass(frozen=True)
class LocalProcesses:
    """Runs work in processes on this machine.

    Attributes:
        jobs: number of parallel processes.
    """

    jobs: int

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """See :class:`Executor`."""
        with ProcessPoolExecutor(self.jobs, mp_context=get_context("spawn")) as pool:
            for future in as_completed([pool.submit(work, item) for item in items]):
                yield future.result()
