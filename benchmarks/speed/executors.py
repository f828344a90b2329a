"""Seconds that a task costs beside its work: on processes of this machine, and on Ray.

    python -m benchmarks.speed.executors [--address local] [--tasks 400] [--megabytes 150]

Tasks are timed from the end of the first to the end of the last. With ``--megabytes``, the work brings as many features, as for a
grid of many datasets.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from operator import is_
from typing import Any

import numpy as np

from benchmarks.command import positive, start
from biomedcoop.benchmark.executor import Executor, LocalProcesses
from biomedcoop.benchmark.ray_executor import RayCluster
from biomedcoop.report.table import Table
from biomedcoop.threads import available_cores

IMPORT = "import biomedcoop.classifier.fit"


def measure(executor: Executor, work: Callable[[Any], object], items: Sequence[Any]) -> tuple[float, float]:
    """(seconds until the first task has ended, seconds per task from then on)."""
    begin = time.perf_counter()
    results = executor.map(work, items)
    next(iter(results))
    first = time.perf_counter()
    for _ in results:
        pass
    return first - begin, (time.perf_counter() - first) / max(1, len(items) - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", default="local")
    parser.add_argument("--tasks", type=positive, default=400)
    parser.add_argument("--megabytes", type=positive, default=150)
    asked = parser.parse_args()
    cores = available_cores()
    local = LocalProcesses(cores)
    rows = []

    def add(name: str, executor: Executor, what: str, work: Callable[[Any], object], items: Sequence[Any]) -> None:
        first, each = measure(executor, work, items)
        rows.append([name, what, f"{first:.2f}", f"{1000 * each:.1f}"])

    add(f"{cores} processes", local, "import of the package", exec, [IMPORT] * cores)
    add(f"{cores} processes", local, "nothing", abs, range(asked.tasks))
    begin = time.perf_counter()
    with RayCluster(asked.address) as cluster:
        connected = time.perf_counter() - begin
        name = f"Ray, {cluster.slots} slots"
        add(name, cluster, "import of the package", exec, [IMPORT] * cluster.slots)
        add(name, cluster, "nothing", abs, range(asked.tasks))
        features = np.zeros((asked.megabytes, 2**18), np.float32)
        add(name, cluster, f"nothing, with {asked.megabytes} MiB", partial(is_, features), range(asked.tasks))
    print(Table(["executor", "work", "first task, s", "each further task, ms"], rows, align="llrr").markdown())
    print(f"\nRay at '{asked.address}' is connected after {connected:.1f} s.")


if __name__ == "__main__":
    start(main)
