"""Run a protocol: plan the grid, say what it will cost, encode, compute what is missing, and keep the results."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from biomedcoop.benchmark.compute import Computed, Work, compute_group
from biomedcoop.benchmark.estimate import Cost, disk_bytes, measure_speeds, read_speeds, seconds_of
from biomedcoop.benchmark.executor import Executor, LocalProcesses, WorkerLost
from biomedcoop.benchmark.journal import (
    PLAN,
    RESULTS,
    Journal,
    check_own,
    earlier_plan,
    is_final,
    read_lines,
    read_plan,
)
from biomedcoop.benchmark.plan import Group
from biomedcoop.benchmark.prepare import (
    Grid,
    check_sentences,
    count_images,
    encode,
    find_backbones,
    keep_tests,
    plan_grid,
)
from biomedcoop.benchmark.protocol import Protocol
from biomedcoop.benchmark.ray_executor import AUTO, RayCluster
from biomedcoop.benchmark.record import record_of, resolved_device, resolved_precisions
from biomedcoop.benchmark.reporting import write_report
from biomedcoop.benchmark.sources import find_sources
from biomedcoop.data.readers.named import user_path
from biomedcoop.display import shown
from biomedcoop.errors import UserError
from biomedcoop.progress import Progress, ProgressOption, counting
from biomedcoop.tasks import options
from biomedcoop.threads import available_cores

_log = logging.getLogger("biomedcoop")


@dataclass(frozen=True)
class Summary:
    """The state of a benchmark.

    Attributes:
        folder: the output folder.
        done, skipped, failed: number of runs by state, with those of earlier calls.
        left: number of runs that are still to be computed; 0 unless this was a dry run.
        seconds: time that this call computed groups.
        busy: time that its processes spent in groups, summed over the processes.
        jobs: number of its processes.
        cost: what was left at the start of this call; None if nothing was.
    """

    folder: Path
    done: int
    skipped: int
    failed: int
    left: int = 0
    seconds: float = 0.0
    busy: float = 0.0
    jobs: int = 1
    cost: Cost | None = None

    @property
    def overhead(self) -> float | None:
        """Time of the processes outside groups, as a share of the time in them; None if nothing was computed."""
        return (self.jobs * self.seconds - self.busy) / self.busy if self.busy else None

    def to_dict(self) -> dict[str, Any]:
        """The state as JSON values."""
        cost = None if self.cost is None else self.cost.to_dict(self.jobs)
        return {**dataclasses.asdict(self), "folder": str(self.folder), "overhead": self.overhead, "cost": cost}

    def __str__(self) -> str:
        counts = {"done": self.done, "skipped": self.skipped, "failed": self.failed, "to compute": self.left}
        return ", ".join(f"{count:,} {state}" for state, count in counts.items() if count) or "no runs"


def run_benchmark(
    protocol: Protocol | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    datasets: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    backbones: Sequence[str] | None = None,
    shots: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
    data_root: str | os.PathLike[str] | None = None,
    jobs: int | None = None,
    threads: int | None = None,
    device: str = "cpu",
    precision: str = "float32",
    plugins: Iterable[str | os.PathLike[str]] = (),
    dry_run: bool = False,
    executor: Executor | str = "local",
    address: str | None = None,
    progress: ProgressOption = None,
) -> Summary:
    """Compute the runs of a protocol; the same call continues what was interrupted.

    All seeds of a dataset, backbone, method and number of shots train together. Each finished run is a line of ``results.jsonl`` in
    the output folder. A run that fails is a line with its reason, and the others go on; the next call tries it again.

    Args:
        protocol: the name of a protocol of the package (``biomedcoop benchmark list``), the path of a TOML file, or a protocol.
        out: folder of the results.
        datasets, methods, backbones, shots, seeds: what replaces those of a protocol that is given by name or path.
        data_root: folder of datasets that are found by name; by default ``BIOMEDCOOP_DATA``.
        jobs: parallel processes; by default one for each core, or for each ``threads`` cores.
        threads: threads that share an operation of a training; by default those of the earlier call, else 1. The last bits of
            results can depend on it.
        device, precision: see :func:`biomedcoop.load_backbone`; "auto" is resolved once, at the first call, and kept in the folder.
        plugins: Python files that register methods.
        dry_run: only say what the work would cost; nothing is written but features in the store.
        executor: computes the groups of runs: "local" for ``jobs`` processes on this machine, "ray" for a Ray cluster, or an
            executor of your own.
        address: ``HOST:PORT`` of a Ray cluster's head node, "auto" (default) for the cluster that this machine belongs to, or
            "local" for a new one on this machine.
        progress: see :func:`biomedcoop.fit`.

    Raises:
        UserError: an argument cannot be used, nothing can be computed, or the folder belongs to other results.

    Example:
        >>> import tempfile
        >>> import biomedcoop as bc
        >>> data = ["simulated:breast-ultrasound?train=4&val=1&test=2"]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     summary = bc.run_benchmark("quick", folder, datasets=data, methods=["zero-shot"], jobs=1)
        >>> summary.done, summary.failed
        (1, 0)
    """
    files = options.plugins("plugins", plugins)
    grid = {"datasets": datasets, "methods": methods, "backbones": backbones, "shots": shots, "seeds": seeds}
    over = {key: value for key, value in grid.items() if value is not None}
    if isinstance(protocol, Protocol):
        if over:
            raise UserError(
                f"{next(iter(over))} cannot replace that of a Protocol; give the protocol by its name or path"
            )
    else:
        protocol = Protocol.read(protocol, over)
    options.precision("precision", precision)
    place = user_path(out)
    if threads is None:
        threads = int(read_plan(place)["threads"]) if (place / PLAN).is_file() else 1
    threads = options.whole_number(1, 1)("threads", threads)
    device = resolved_device(options.device("device", device), place)
    if isinstance(executor, str) and executor not in ("local", "ray"):
        raise UserError(f"executor '{executor}' is not known; choose local or ray")
    if executor == "ray" and jobs is not None:
        raise UserError("jobs is for processes on this machine; the cores of a Ray cluster decide, so leave it out")
    if executor != "ray" and address is not None:
        raise UserError("address is that of a Ray cluster; give executor ray with it")
    if jobs is None:
        jobs = max(1, available_cores() // threads) if device == "cpu" else 1
    jobs = options.whole_number(2, 1)("jobs", jobs)
    with shown(progress) as tell, _chosen(executor, address, jobs, threads, device) as chosen:
        sources = find_sources(protocol, None if data_root is None else user_path(data_root), tell)
        if all(sources[name].place is None for name in protocol.datasets):
            raise UserError(sources[protocol.datasets[0]].reason)
        work = Work(protocol, sources, threads, device, resolved_precisions(protocol, device, precision, place), files)
        return _run(work, place, chosen.slots if isinstance(chosen, RayCluster) else jobs, dry_run, chosen, tell)


def _chosen(
    executor: Executor | str, address: str | None, jobs: int, threads: int, device: str
) -> AbstractContextManager[Executor]:
    """The executor, connected inside its block."""
    if not isinstance(executor, str):
        return nullcontext(executor)
    if executor == "ray":
        return RayCluster(AUTO if address is None else address, threads, int(device.startswith("cuda")))
    return nullcontext(LocalProcesses(jobs))


def _run(work: Work, out: Path, jobs: int, dry_run: bool, executor: Executor, progress: Progress) -> Summary:
    backbones, fingerprints = find_backbones(work)
    usable = {source.name for source in work.sources.values() if source.place}
    record = record_of(work, fingerprints)
    check_sentences(work)
    if dry_run:
        check_own(out)
        earlier_plan(out, record)
        _say_missing(work, backbones)
        finished = _finished(out, usable)
        grid = plan_grid(work, backbones, finished, progress)
        return _state(out, len(finished), grid, jobs, _say_cost(work, grid, jobs, out, progress))
    with Journal(out, usable) as journal:
        journal.keep_plan(record)
        _say_missing(work, backbones)
        keep_tests(work, journal)
        grid = plan_grid(work, backbones, journal.finished, progress)
        journal.append(grid.lines)
        timed = 0.0, 0.0
        cost: Cost | None = None
        if grid.groups:
            cost = _say_cost(work, grid, jobs, out, progress)
            journal.keep_speeds(cost.speeds)
            compute: Callable[[Group], Computed] = partial(compute_group, work)
            if isinstance(executor, RayCluster):
                from biomedcoop.benchmark.nodes import prepare_nodes
                from biomedcoop.benchmark.travel import encode_on

                prepare_nodes(work, record, executor)
                compute = encode_on(executor, work, grid, progress)
            else:
                encode(work, grid, progress)
            timed = _compute(work, compute, grid.groups, cost.seconds, journal, executor, progress)
        counts = journal.counts
    write_report(out)
    return Summary(out, counts["done"], counts["skipped"], counts["failed"], 0, *timed, jobs, cost)


def _say_missing(work: Work, backbones: Mapping[str, str]) -> None:
    """Warn of datasets and backbones that cannot be used."""
    for source in work.sources.values():
        if source.place is None:
            what = "its runs fail" if source.trained else "nothing is tested on it"
            _log.warning(f"dataset {source.name}: {what}: {source.reason}")
    for name, reason in backbones.items():
        if reason:
            _log.warning(f"backbone {name}: its runs fail: {reason}")


def _finished(out: Path, usable: set[str]) -> set[str]:
    path = out / RESULTS
    return {line["run"] for line in read_lines(path) if is_final(line, usable)} if path.exists() else set()


def _state(out: Path, finished: int, grid: Grid, jobs: int, cost: Cost) -> Summary:
    """The state that a dry run finds; finished runs count as done."""
    skipped = sum(line["status"] == "skipped" for line in grid.lines)
    left = sum(len(group.seeds) for group in grid.groups)
    return Summary(
        out, finished, skipped, len(grid.lines) - skipped, left, jobs=jobs, cost=cost if grid.groups else None
    )


def _say_cost(work: Work, grid: Grid, jobs: int, out: Path, progress: Progress) -> Cost:
    """Say what the work will cost; speeds that an earlier call measured are taken from the folder."""
    images, encoding = count_images(work, grid, progress)
    speeds = measure_speeds(work, grid.groups, read_speeds(out), counting(progress, "measuring"))
    seconds = {group.id: seconds_of(work, group, speeds) for group in grid.groups}
    runs = sum(len(group.seeds) for group in grid.groups)
    disk = disk_bytes(work, grid.groups, images) if grid.groups else 0
    cost = Cost(runs, seconds, images, encoding, disk, speeds)
    for line in cost.lines(jobs):
        _log.info(line)
    return cost


def _compute(
    work: Work,
    compute: Callable[[Group], Computed],
    groups: Sequence[Group],
    estimated: Mapping[str, float],
    journal: Journal,
    executor: Executor,
    progress: Progress,
) -> tuple[float, float]:
    """Compute groups and keep their lines; returns the seconds that passed and those spent in groups."""
    # a process keeps its last backbone and datasets, so these stay together; within them the dearest groups come first
    backbones, datasets = work.protocol.backbones, work.protocol.datasets
    order = sorted(
        groups,
        key=lambda g: (backbones.index(g.backbone), datasets.index(g.dataset), -estimated[g.id]),
    )
    total, runs = sum(estimated.values()), sum(len(group.seeds) for group in groups)
    share, finished, busy = 0.0, 0, 0.0
    begin = time.perf_counter()
    progress(f"computing (0 of {runs} runs), percent", 0, 100)
    with closing(executor.map(compute, order)) as results:  # type: ignore[type-var]
        for group, result in results:
            if isinstance(result, WorkerLost):
                lines = group.lines("failed", reason=str(result))
            else:
                lines, busy = result.lines, busy + result.seconds
            journal.append(lines)
            if lines[0]["status"] == "failed":
                _log.warning(f"{group.id}: failed: {lines[0]['reason']}")
            share, finished = share + estimated[group.id] / total, finished + len(lines)
            done = 100 if finished == runs else min(99, int(100 * share))
            progress(f"computing ({finished} of {runs} runs, last {group.name} {group.row.name}), percent", done, 100)
    return time.perf_counter() - begin, busy
