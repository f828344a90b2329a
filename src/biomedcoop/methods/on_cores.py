"""A fit on the cores of this machine: small work on one of them, several runs of it side by side, large work shared by all."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any, NamedTuple

from biomedcoop.lazy import torch
from biomedcoop.methods.base import Method, Progress, State, Task
from biomedcoop.threads import MOST_AT_ONCE, threads_for, torch_cores, torch_threads


class Cores(NamedTuple):
    """How a fit uses cores; what it learns can depend on it in the last bits.

    Attributes:
        runs: largest number of runs that share a pass of the text tower.
        threads: threads that share an operation.
    """

    runs: int
    threads: int


def cores_for(method: Method, task: Task, settings: Any) -> Cores:
    """The use of cores that fits a task on this machine."""
    runs, cores = len(task.labels), torch_cores()
    if task.backbone.device.type != "cpu" or threads_for(method.step_products(task, settings)) > 1:
        return Cores(runs, cores)
    return Cores(-(-runs // min(cores, MOST_AT_ONCE)) if method.side_by_side else runs, 1)


def fit_on_cores(
    method: Method, task: Task, settings: Any, seeds: Sequence[int], progress: Progress | None, cores: Cores
) -> list[State]:
    """``method.fit``, on as many cores as :func:`cores_for` says; states in the order of the seeds."""
    starts = range(0, len(seeds), cores.runs)
    if len(starts) == 1:
        with torch_threads(cores.threads), torch.enable_grad():
            return method.fit(task, settings, seeds, progress)
    stop = Event()

    def told(first: bool) -> Progress:
        def tell(done: int, total: int, words: str) -> None:
            if stop.is_set():
                raise _Stopped
            if first and progress is not None:
                progress(done, total, words)

        return tell

    def fit(start: int) -> list[State]:
        part = slice(start, start + cores.runs)
        with torch_threads(cores.threads):
            return method.fit(_runs_of(task, part), settings, seeds[part], told(start == 0))

    with ThreadPoolExecutor(len(starts)) as pool:
        try:
            return [state for states in pool.map(fit, starts) for state in states]
        except BaseException:  # also Ctrl-C: the other parts must not go on to their end
            stop.set()
            raise


class _Stopped(Exception):
    """Ends the parts of a fit of which another has failed."""


def _runs_of(task: Task, part: slice) -> Task:
    """The task of some of its runs."""
    per_run = ("features", "labels", "val_features", "val_labels")
    own = {name: value[part] for name in per_run if (value := getattr(task, name)) is not None}
    return dataclasses.replace(task, **own)
