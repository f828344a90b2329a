"""Seconds of training and predicting on an idle machine, beside busy processes, and under a quota of one core.

    python -m benchmarks.speed.threads [--before SRC] [--repetitions 3] [--large] [--only "idle,one busy"] [--works predict]

Fresh processes with the shipped backbone, as users start them: Python code that sets nothing, and the commands. ``--before``
names the ``src`` folder of another version, which takes turns with this one. ``--large`` adds training at BiomedCLIP's size.
"One core" is an affinity; the quota is a control group and is left out where none can be made. A work that takes longer than
``--limit`` seconds is stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.command import positive, start
from benchmarks.speed.full_size import write_bin
from benchmarks.speed.inputs import write_jpegs
from biomedcoop.report.table import Table

CLASSES, SHOTS, EPOCHS, IMAGES = 5, 16, 10, 2000
GOAL_BUSY = 2.5
"""Times the idle time of one core, beside one busy process."""
GOAL_SMALL, GOAL_OTHERS = 1.6, 1.1
"""Times the best idle time of before: of one small run, and of all else (runs of one version differ by a tenth)."""
SMALL = ("Python, one run", "`train`")

TRAINING = f"""
import sys, time, warnings
warnings.simplefilter("ignore")
import numpy as np
import biomedcoop as bc
backbone, runs, epochs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
n = {CLASSES * SHOTS}
data = bc.Dataset(
    name="drawn", class_names=tuple(f"lesion type {{c}}" for c in "ABCDE"),
    images=np.random.default_rng(0).integers(0, 256, (n, 64, 64), dtype=np.uint8), keys=tuple(map(str, range(n))),
    labels=np.arange(n) % {CLASSES}, splits=np.array(["train"] * n),
)
loaded = bc.load_backbone(backbone)
def fit(seeds, epochs):
    bc.fit_runs(data, "biomedcoop", loaded, {SHOTS}, seeds, settings={{"epochs": epochs}}, prompts="templates")
fit([0], 1)  # features and sentences are in the store, and what is set up once is there
begin = time.perf_counter()
fit(range(1, 1 + runs), epochs)
print("seconds", time.perf_counter() - begin)
"""

BUSY = (
    "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"  # ends with this process, however that ends
)


def works(place: Path, large: bool) -> dict[str, list[str]]:
    """Every work as a command; what it needs is written into ``place``."""
    write_jpegs(
        place / "scans", {"train": 20, "test": 20}, ("benign lesion", "malignant lesion", "normal tissue"), 300, 280
    )
    write_jpegs(place / "many", {"new": IMAGES // 2}, ("one", "two"), 300, 280)
    package = [sys.executable, "-m", "biomedcoop"]
    training = [sys.executable, "-c", TRAINING]
    found = {
        "Python, one run": [*training, "mini", "1", str(EPOCHS)],
        "Python, six runs": [*training, "mini", "6", str(EPOCHS)],
        "`train`": [*package, "train", "--data", str(place / "scans"), "--shots", "14", "--overwrite", "--out"],
        f"`predict`, {IMAGES:,} images": [
            *package,
            "predict",
            str(place / "model"),
            str(place / "many"),
            "--overwrite",
            "--out",
        ],
    }
    found["`train`"].append(str(place / "run"))
    found[f"`predict`, {IMAGES:,} images"].append(str(place / "predictions.csv"))
    model = "import biomedcoop as bc; bc.fit(bc.load_dataset('simulated:breast-ultrasound'), 'zero-shot').save"
    subprocess.run([sys.executable, "-c", f"{model}({str(place / 'model')!r})"], check=True)
    if large:
        write_bin(place / "full-size")
        found["Python, one run at full size, an epoch"] = [*training, str(place / "full-size"), "1", "1"]
        found["Python, six runs at full size, an epoch"] = [*training, str(place / "full-size"), "6", "1"]
    return found


@contextlib.contextmanager
def beside(count: int) -> Iterator[None]:
    """So many other processes that never rest."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def one_core_quota() -> Path | None:
    """A control group that may use one core's time, or None where it cannot be made."""
    for root, quota, period in (
        (Path("/sys/fs/cgroup/cpu"), "cpu.cfs_quota_us", "cpu.cfs_period_us"),
        (Path("/sys/fs/cgroup"), "cpu.max", None),
    ):
        group = root / f"biomedcoop-{os.getpid()}"
        try:
            group.mkdir()
            (group / quota).write_text("100000" if period else "100000 100000")
            return group
        except OSError:
            with contextlib.suppress(OSError):
                group.rmdir()
    return None


def seconds(
    command: Sequence[str], cache: Path, source: Path | None, limit: float, group: Path | None, one: bool
) -> float:
    """From start to end, or the time that the work itself reports; infinite beyond the limit."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_", "KMP_", "MKL_"))
    }
    environment["BIOMEDCOOP_CACHE"] = str(cache)
    if source is not None:
        environment["PYTHONPATH"] = str(source)

    def confine() -> None:
        if group is not None:
            (group / "cgroup.procs").write_text(str(os.getpid()))
        if one:
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    begin = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=confine
    )
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return float("inf")
    if process.returncode:
        raise SystemExit(f"{' '.join(command[:6])} … failed:\n{err}")
    taken = time.perf_counter() - begin
    return float(out.split()[1]) if out.startswith("seconds") else taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="src folder of another version")
    parser.add_argument("--repetitions", type=positive, default=3, help="of each work and condition; the median counts")
    parser.add_argument("--limit", type=positive, default=150, help="seconds after which a work is stopped")
    parser.add_argument("--large", action="store_true", help="also at BiomedCLIP's size")
    parser.add_argument("--only", help="some of the conditions, separated by commas")
    parser.add_argument("--works", default="", help="only works whose names hold these words")
    given = parser.parse_args()
    if given.before is not None and not (given.before / "biomedcoop").is_dir():
        raise SystemExit(f"{given.before} holds no biomedcoop; name the src folder of a checkout")
    group = one_core_quota()
    conditions: dict[str, tuple[int, Path | None, bool]] = {
        "idle": (0, None, False),
        "one busy": (1, None, False),
        "two busy": (2, None, False),
        "one core": (0, None, True),
    }
    if group is not None:
        conditions["quota of one"] = (0, group, False)
    if given.only is not None:
        wanted = [word.strip() for word in given.only.split(",")]
        if unknown := [word for word in wanted if word not in conditions]:
            raise SystemExit(f"no condition '{unknown[0]}'; there are: {', '.join(conditions)}")
        conditions = {name: conditions[name] for name in wanted}
    versions = ([("before", given.before)] if given.before is not None else []) + [("now", None)]
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        os.environ["BIOMEDCOOP_CACHE"] = str(place / "cache")
        ready = {name: command for name, command in works(place, given.large).items() if given.works in name}
        found: dict[tuple[str, str, str], list[float]] = {}
        try:
            for round_ in range(given.repetitions):
                for name, command in ready.items():
                    for condition, (others, quota, one) in conditions.items():
                        for version, source in versions:
                            key = (name, version, condition)
                            if round_ and float("inf") in found[key]:
                                continue
                            with beside(others):
                                taken = seconds(command, place / "cache", source, given.limit, quota, one)
                            found.setdefault(key, []).append(taken)
                            print(*key, f"{taken:.1f}", file=sys.stderr, flush=True)
        finally:
            if group is not None:
                group.rmdir()
    median = {key: statistics.median(taken) for key, taken in found.items()}

    def shown(value: float) -> str:
        return f"over {given.limit}" if value == float("inf") else f"{value:.1f}"

    rows = [
        [name, version, *(shown(median[name, version, condition]) for condition in conditions)]
        for name in ready
        for version, _ in versions
    ]
    print(Table(["seconds", "", *conditions], rows).markdown())
    failed = []
    for name in ready:
        if {"one busy", "one core"} <= set(conditions):
            ratio = median[name, "now", "one busy"] / median[name, "now", "one core"]
            if ratio > GOAL_BUSY:
                failed.append(
                    f"{name}: {ratio:.1f} times the time of one idle core beside a busy process; the goal is {GOAL_BUSY}"
                )
        if given.before is not None and "idle" in conditions:
            ratio = min(found[name, "now", "idle"]) / min(found[name, "before", "idle"])
            goal = GOAL_SMALL if name in SMALL else GOAL_OTHERS
            if ratio > goal:
                failed.append(f"{name}: {ratio:.2f} times the idle time of before; the goal is {goal}")
    print("\n" + ("\n".join(failed) if failed else "All goals are met."))


if __name__ == "__main__":
    start(main)
