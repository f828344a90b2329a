"""What the commands of all studies share: their options, the run, and where the tables go."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.command import positive
from benchmarks.datasets import GROUPS, NAMES, related
from benchmarks.pages import publish
from biomedcoop.evaluation.study.cells import Cell, Compute
from biomedcoop.evaluation.study.executor import LocalProcesses
from biomedcoop.evaluation.study.inputs import encoded, loaded
from biomedcoop.evaluation.study.results import Results
from biomedcoop.evaluation.study.runner import run_cells
from biomedcoop.report.table import Table


def arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Those that every study has, and the datasets checked."""
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="keeps the results, one file a cell")
    parser.add_argument("--backbone", default="mini", help="a name, or a folder in open_clip layout")
    parser.add_argument("--datasets", help="only these, separated by commas")
    parser.add_argument("--jobs", type=positive, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument("--page", action="store_true", help="renew the page in docs/results/ too")
    args = parser.parse_args()
    args.datasets = args.datasets.split(",") if args.datasets else list(NAMES)
    if unknown := set(args.datasets) - set(NAMES):
        parser.error(f"no dataset {sorted(unknown)[0]!r} here; known: {', '.join(NAMES)}")
    if args.page and set(args.datasets) != set(NAMES):
        parser.error("--page needs all datasets; leave out --datasets")
    return args


def run(compute: Compute, cells: Sequence[Cell], args: argparse.Namespace, split: str = "test") -> Results:
    """Compute what is missing, and give the results of all cells."""
    # cells of another backbone are other cells
    folder = args.work / loaded(args.backbone).fingerprint[:12]
    run_cells(compute, cells, args.backbone, folder, LocalProcesses(args.jobs))
    scored = {name: (data := encoded(name, args.backbone)[0]).select(data.indices(split)) for name in args.datasets}
    return Results({name: related(data) for name, data in scored.items()}, folder, cells, GROUPS)


def show(page: str, tables: Mapping[str, Table], args: argparse.Namespace) -> None:
    """Print the tables; with ``--page`` write them into ``docs/results/`` as well."""
    for name, table in tables.items():
        if table.rows:  # a mean needs all datasets of its group
            print(f"### {name}\n\n{table.markdown()}\n", flush=True)
    if args.page:
        publish(page, tables)
