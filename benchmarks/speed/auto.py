"""Method ``auto`` from the command line to the report, each run a fresh process with an empty feature store.

    python -m benchmarks.speed.auto [--budgets 1s 10s 60s] [--backbone mini]

A simulated dataset of 3 classes with 16 training images each, once with its test split and once without, where the nested
cross-validation is the estimate. Processor seconds are beside those on the clock: where other
work shares the cores, only they compare.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.command import start
from benchmarks.speed.floors import run_process
from biomedcoop.report.table import Table

SHOTS = 16
GOALS = {"test split": 60, "nested estimate": 180}
"""Seconds on two idle cores."""


def candidates(run: Path) -> tuple[int, int]:
    """How many methods a run has tried, and how many it left out because of the budget."""
    tried = [one for one in json.loads((run / "metrics.json").read_text("utf-8"))["tried"] if one["weight"] is not None]
    within = sum(one["temperature"] > 0 for one in tried)
    return within, len(tried) - within


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budgets", nargs="+", default=["1s", "10s", "60s"], metavar="TIME")
    parser.add_argument("--backbone", default="mini", help="a name, or a folder in open_clip layout")
    args = parser.parse_args()
    command = [sys.executable, "-m", "biomedcoop"]
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        data = place / "data"
        run_process([*command, "datasets", "simulate", "breast-ultrasound", "--out", str(data)], place / "cache")
        folders = {"test split": data, "nested estimate": data / "train"}
        for budget in args.budgets:
            for what, folder in folders.items():
                run = place / f"run-{len(rows)}"
                options = ["--data", str(folder), "--shots", str(SHOTS), "--backbone", args.backbone]
                options += ["--budget", budget, "--out", str(run)]
                done = run_process([*command, "train", *options], place / f"cache-{len(rows)}")
                within, left_out = candidates(run)
                rows.append(
                    [
                        budget,
                        what,
                        f"{done.seconds:.0f}",
                        f"{done.processor:.0f}",
                        GOALS[what],
                        within,
                        left_out,
                        f"{done.memory / 2**30:.2f}",
                    ]
                )
                print(*rows[-1], file=sys.stderr, flush=True)
    columns = ["budget", "run", "s", "processor s", "goal, s", "methods tried", "left out", "peak GiB"]
    print(Table(columns, rows, "llrrrrrr").markdown())


if __name__ == "__main__":
    start(main)
