"""Work done ahead of where it is needed: in threads, in order, with a bounded number of results waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

import torch

from biomedcoop.threads import set_torch_threads, torch_cores

In = TypeVar("In")
Out = TypeVar("Out")


def run_ahead(
    function: Callable[[In], Out],
    items: Iterable[In],
    ahead: int = 32,
    threads: int = 2,
    initializer: Callable[[], object] | None = None,
) -> Generator[Out, None, None]:
    """``map`` in threads, with results in the order of ``items``.

    An error of ``items`` is raised after the results of the items before it.

    Args:
        ahead: largest number of results that wait to be taken.
        threads: number of threads that call ``function``.
        initializer: called once in each thread, before its first item.
    """
    failure, source = None, iter(items)
    with ThreadPoolExecutor(threads, initializer=initializer) as pool:
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
            for future in waiting:
                future.cancel()
    if failure is not None:
        raise failure


def passes_on_every_core(
    run_pass: Callable[[In], Out], batches: Iterable[In], device: torch.device
) -> Generator[Out, None, None]:
    """``map`` over batches; on a CPU each core runs a pass of its own.

    Cores that share one pass wait for each other at each of its operations; cores with a pass each do not.

    Args:
        run_pass: encodes one batch.
        batches: in the order in which results are given.
        device: where the passes run; on anything but a CPU they run one after the other.
    """
    if device.type != "cpu":
        yield from map(run_pass, batches)
        return
    cores = torch_cores()
    with closing(run_ahead(run_pass, batches, cores + 1, cores, lambda: set_torch_threads(1))) as ahead:
        yield from ahead


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
