"""Seconds from the start of a command to its end, each a whole process, beside what Python and torch alone need.

    python -m benchmarks.speed.cold_start [--repetitions 9]

The files are in the page cache and Python has compiled them: the first round does not count.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import biomedcoop as bc
from benchmarks.command import positive, start
from benchmarks.speed.floors import run_process, timings
from biomedcoop.report.table import Table

GOALS = {"biomedcoop --help": 0.4, "biomedcoop methods list": 1.0, "biomedcoop predict": 5.0}
FLOORS = {
    "biomedcoop --help": "python -c pass",
    "biomedcoop methods list": "python -c pass",
    "biomedcoop predict": "python -c 'import torch'",
}
"""The process without which the command cannot be."""


def commands(place: Path) -> dict[str, list[str]]:
    """Every command that is measured; what ``predict`` needs is written into ``place``."""
    image = np.random.default_rng(0).integers(0, 256, (488, 512), dtype=np.uint8)
    Image.fromarray(image).save(place / "scan.png")
    bc.fit(bc.load_dataset("simulated:breast-ultrasound"), "zero-shot").save(place / "model")
    package = ["-m", "biomedcoop"]
    words = {
        "python -c pass": ["-c", "pass"],
        "python -c 'import torch'": ["-c", "import torch"],
        "biomedcoop --help": [*package, "--help"],
        "biomedcoop methods list": [*package, "methods", "list"],
        "biomedcoop predict": [*package, "predict", str(place / "model"), str(place / "scan.png")],
    }
    return {name: [sys.executable, *rest] for name, rest in words.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=positive, default=9, help="of each command")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        os.environ["BIOMEDCOOP_CACHE"] = str(place)
        ready = commands(place)
        done: dict[str, list[float]] = {name: [] for name in ready}
        works = {name: lambda name=name: done[name].append(run_process(ready[name], place).seconds) for name in ready}
        timings(works, given.repetitions, torch.device("cpu"))
    taken = {name: seconds[1:] for name, seconds in done.items()}
    rows = []
    for name, seconds in taken.items():
        floor = f"{statistics.median(taken[FLOORS[name]]):.2f}" if name in FLOORS else ""
        rows.append(
            [f"`{name}`", f"{statistics.median(seconds):.2f}", f"{min(seconds):.2f}", GOALS.get(name, ""), floor]
        )
    print(
        f"Whole processes, {given.repetitions} rounds in turn, load average before the start {load:.1f}. `predict`: one image, the "
        "shipped backbone. Floor: Python's own start, or that of torch, in the same rounds.",
        "",
        Table(["command", "median s", "least s", "goal: at most", "floor, s"], rows).markdown(),
        sep="\n",
    )


if __name__ == "__main__":
    start(main)
