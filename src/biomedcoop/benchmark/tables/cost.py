"""What a run of each method costs."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from biomedcoop.benchmark.results import BenchmarkResults, TableRow
from biomedcoop.benchmark.tables.result_table import Cell, ResultTable


def cost_table(results: BenchmarkResults) -> ResultTable | None:
    """Trained parameters, seconds and memory of a run by method; None if nothing was measured."""
    several = len(results.backbones) > 1
    rows: list[list[Cell]] = []
    for row in results.rows:
        runs = [run for run in results.runs if run.row == row and run.status == "done"]
        most = max((run.shots for run in runs), default=0)
        seconds = [run.seconds for run in runs if run.seconds is not None]
        at_most = [run.seconds for run in runs if run.seconds is not None and run.shots == most]
        memory = [run.memory_mb for run in runs if run.memory_mb is not None]
        parameters = sorted({run.parameters for run in runs if run.parameters is not None})
        if seconds or parameters or memory:
            numbers: list[Cell] = [
                _range(parameters),
                _seconds(median(at_most)) if at_most else None,
                _seconds(sum(seconds)) if seconds else None,
                f"{max(memory):,.0f}" if memory else None,
            ]
            rows.append([row.name, *([row.backbone] if several else []), *numbers])
    if not rows:
        return None
    heads = ["method", *(["backbone"] if several else []), "trained parameters", "s a run, most shots", "s in all"]
    title = "Cost: trained parameters, median seconds of a run, and memory"
    return ResultTable("cost", title, [*heads, "memory, MB"], rows, texts=1 + several)


def unfinished_table(results: BenchmarkResults) -> ResultTable | None:
    """Failed and skipped runs with their reasons, equal reasons together; None if there is none."""
    found: dict[tuple[TableRow, str, str], list[tuple[str, int]]] = {}
    for run in results.runs:
        if run.status != "done":
            found.setdefault((run.row, run.status, run.reason), []).append((run.dataset, run.shots))
        for test, reason in run.untested.items():
            found.setdefault((run.row, "not tested", reason), []).append((f"{run.dataset} → {test}", run.shots))
    rows: list[list[Cell]] = [
        [
            row.name + (f" ({row.backbone})" if len(results.backbones) > 1 else ""),
            ", ".join(dict.fromkeys(dataset for dataset, _ in places)),
            ", ".join(map(str, sorted({shots for _, shots in places}))),
            f"{status}, {len(places)}",
            reason or "no reason recorded",
        ]
        for (row, status, reason), places in found.items()
    ]
    if not rows:
        return None
    heads = ["method", "datasets", "shots", "runs", "reason"]
    return ResultTable("not-done", "Failed and skipped runs", heads, rows, texts=5)


def _range(values: Sequence[int]) -> Cell:
    if not values:
        return None
    return f"{values[0]:,}" if len(values) == 1 else f"{values[0]:,}–{values[-1]:,}"


def _seconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.3f}"
