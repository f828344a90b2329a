"""Compute the missing cells of a study."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from biomedcoop.evaluation.study.cells import Cell, Compute
from biomedcoop.evaluation.study.executor import Executor
from biomedcoop.evaluation.study.inputs import encoded
from biomedcoop.output import write_atomically


def run_cells(compute: Compute, cells: Sequence[Cell], backbone: str, folder: Path, executor: Executor) -> None:
    """Compute the missing cells, the most expensive first, and write each cell to its file as soon as it is ready.

    Args:
        compute: function that computes the answers of one cell.
        cells: all cells of the study.
        backbone: name of a backbone, or a folder in open_clip layout.
        folder: folder for the cells of this backbone.
        executor: runs the computation.
    """
    folder.mkdir(parents=True, exist_ok=True)
    todo = [cell for cell in sorted(cells, key=lambda cell: -cell.cost) if not cell.file(folder).is_file()]
    for dataset in dict.fromkeys(cell.dataset for cell in todo):  # once, before several processes need its features
        encoded(dataset, backbone)
    begin = time.monotonic()
    work = partial(_compute, compute, backbone, folder)
    for done, (name, seconds) in enumerate(executor.map(work, todo), start=1):
        minutes = (time.monotonic() - begin) / 60
        print(f"{done}/{len(todo)} {name} {seconds:.1f} s, {minutes:.1f} min in all", file=sys.stderr, flush=True)


def _compute(compute: Compute, backbone: str, folder: Path, cell: Cell) -> tuple[str, float]:
    torch.set_num_threads(1)  # the processes share the cores
    begin = time.monotonic()
    right = compute(cell.dataset, cell.key, backbone)
    write_atomically(cell.file(folder), json.dumps(right).encode())
    return cell.name, time.monotonic() - begin
