"""Work done ahead of where it is needed: in threads, in order, with a bounded number of results waiting."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from functools import cache
from itertools import islice
from threading import Lock, local
from typing import TypeVar

import torch

from biomedcoop.threads import set_torch_threads, torch_cores

In = TypeVar("In")
Out = TypeVar("Out")


def run_ahead(
    function: Callable[[In], Out], items: Iterable[In], ahead: int = 32, threads: int = 2
) -> Generator[Out, None, None]:
    """``map`` in threads, with results in the order of ``items``; an only item is not worth a thread.

    An error of ``items`` is raised after the results of the items before it.

    Args:
        function: called with each item.
        items: taken one by one, at most ``ahead`` of them before their results are.
        ahead: largest number of results that wait to be taken.
        threads: number of threads that call ``function``.
    """
    items, several = _several(items)
    if not several:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads) as pool, closing(_in_order(pool, function, items, ahead)) as results:
        yield from results


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[In], Out], items: Iterable[In], ahead: int
) -> Generator[Out, None, None]:
    """See :func:`run_ahead`; no call goes on after the end."""
    failure, source = None, iter(items)
    waiting: deque[Future[Out]] = deque()
    try:
        while True:
            try:
                item = next(source)
            except StopIteration:
                break
            except Exception as error:
                failure = error
                break
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        wait([future for future in waiting if not future.cancel()])
    if failure is not None:
        raise failure


def passes_on_every_core(
    run_pass: Callable[[In], Out], batches: Iterable[In], device: torch.device, shared: bool = False
) -> Generator[Out, None, None]:
    """``map`` over batches; on a CPU each core runs a pass of its own.

    Cores that share one pass wait for each other at each of its operations; cores with a pass each do not. The threads stay for
    the next passes: the memory of a new thread is new too, which costs a pass of one image a tenth of its time.

    Args:
        run_pass: encodes one batch.
        batches: in the order in which results are given.
        device: where the passes run; on anything but a CPU they run one after the other.
        shared: cores share the operations of a pass that is the only one, at most ``SHARING`` of them, unless they already share
            another.
    """
    if device.type != "cpu":
        yield from map(run_pass, batches)
        return
    cores = torch_cores()
    if getattr(_here, "stays", False):  # passes inside a pass: all staying threads could wait for each other
        with (
            ThreadPoolExecutor(cores, initializer=lambda: set_torch_threads(1)) as own,
            closing(_in_order(own, run_pass, batches, cores + 1)) as results,
        ):
            yield from results
        return
    if shared and cores > 1:
        batches, several = _several(batches)
        if not several and _sharing.acquire(blocking=False):
            try:
                yield from (_sharing_thread(min(cores, SHARING)).submit(run_pass, batch).result() for batch in batches)
            finally:
                _sharing.release()
            return
    with closing(_in_order(_staying_threads(cores), run_pass, batches, cores + 1)) as results:
        yield from results


SHARING = 4
"""Most cores that share a pass. The shipped backbone's image tower has work for three (``threads.PER_CORE``)."""

_here, _sharing = local(), Lock()


def _several(batches: Iterable[In]) -> tuple[Iterator[In], bool]:
    """The same batches, and whether there are two or more."""
    source, first = iter(batches), list[In]()
    failure: Exception | None = None
    try:
        first.extend(islice(source, 2))
    except Exception as error:
        failure = error

    def again() -> Iterator[In]:
        yield from first
        if failure is not None:
            raise failure
        yield from source

    return again(), len(first) > 1


@cache
def _staying_threads(cores: int) -> ThreadPoolExecutor:
    def begin() -> None:
        _here.stays = True
        set_torch_threads(1)

    return ThreadPoolExecutor(cores, initializer=begin)


@cache
def _sharing_thread(cores: int) -> ThreadPoolExecutor:
    """One for all callers: torch keeps a team of threads for each thread that shares its operations."""
    return ThreadPoolExecutor(1, initializer=lambda: set_torch_threads(cores))


def _forget_threads() -> None:
    """Threads do not follow into a forked process."""
    global _sharing
    _staying_threads.cache_clear()
    _sharing_thread.cache_clear()
    _sharing = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


def batched(items: Iterable[In], size: int) -> Iterator[list[In]]:
    """Lists of ``size`` items, the last one shorter; an error of ``items`` is raised after the items before it."""
    batch: list[In] = []
    try:
        for item in items:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch
