"""Where work is done: the one place that knows of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Executor(Protocol):
    """Does work on many items, in any order and any place."""

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield a result for each item, as soon as it is there.

        Args:
            work: a picklable function; items and results are picklable too.
            items: begun in this order.
        """
        ...


@dataclass(frozen=True)
class LocalProcesses:
    """Processes on this machine.

    Attributes:
        jobs: how many at once.
    """

    jobs: int

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """See :class:`Executor`."""
        with ProcessPoolExecutor(self.jobs, mp_context=get_context("spawn")) as pool:
            for future in as_completed([pool.submit(work, item) for item in items]):
                yield future.result()
