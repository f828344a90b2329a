"""What a GPU makes of BiomedCoOp at BiomedCLIP's size, in at most eight minutes: steps, encoding, whole runs, a study of 165 runs.

    python -m benchmarks.speed.gpu --out FOLDER [--device cuda] [--minutes 8] [--backbone FOLDER] [--dry]

Random weights of BiomedCLIP's layout and size (``full_size.py``); the published way is re-enacted (``published.py``) on the same
device, and its whole run is 1,600 of its steps. Each part is a process with a share of the time. A part that takes longer is
ended, and what it measured so far counts. ``FOLDER`` gets ``gpu.json`` and ``gpu.md``. ``--dry`` takes few steps and images, to
try the script without a GPU; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.command import positive, start
from benchmarks.speed.floors import clock
from benchmarks.speed.full_size import write_bin
from benchmarks.speed.inputs import class_names, random_task, write_jpegs
from benchmarks.speed.one_run import PUBLISHED_STEPS, Variant, train, write_sentences
from benchmarks.speed.published import Published, encode_images
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.open_clip import OpenClipBackbone
from biomedcoop.backbones.precision import coarsen_text
from biomedcoop.backbones.registry import usable_device
from biomedcoop.benchmark.protocol import Protocol
from biomedcoop.benchmark.runner import run_benchmark
from biomedcoop.features.passes import encode_crops
from biomedcoop.methods import get_method
from biomedcoop.methods.biomedcoop import BiomedCoOpSettings
from biomedcoop.methods.context import ClassPrompts, ContextMethod
from biomedcoop.methods.training import batches
from biomedcoop.output import write_atomically
from biomedcoop.report.table import Table

CLASSES, SHOTS, SENTENCES, BATCH, WORDS = 4, 16, 50, 4, 3
DATASETS, STUDY_SHOTS, SEEDS = 11, (1, 2, 4, 8, 16), (1, 2, 3)
REPETITIONS = 3
ENDING = 15
"""Seconds that are kept for writing the tables."""


@dataclass(frozen=True)
class Setting:
    """What every part is told.

    Attributes:
        place: folder for what is drawn and stored.
        backbone: folder of the model.
        dry: few steps and images.
    """

    place: Path
    backbone: Path
    device: str
    dry: bool


@dataclass(frozen=True)
class Row:
    """A measurement: ours and, where it exists, the published way's, both in ``unit``."""

    what: str
    unit: str
    ours: float
    published: float | None = None
    note: str = ""


def seconds_of(work: Callable[[], object], device: torch.device, repetitions: int = REPETITIONS) -> float:
    """Median seconds of a work; a first one does not count."""
    work()
    taken = []
    for _ in range(repetitions):
        begin = clock(device)
        work()
        taken.append(clock(device) - begin)
    return statistics.median(taken)


def loaded(setting: Setting, precision: str = "float32") -> OpenClipBackbone:
    backbone = load_backbone(setting.backbone, device=setting.device, precision=precision)
    assert isinstance(backbone, OpenClipBackbone)
    return backbone


def published_step(backbone: OpenClipBackbone, setting: Setting) -> float:
    """Seconds of a step of the published way, on a batch of pixels that is already on the device."""
    device, size = backbone.device, backbone.image_size
    teacher = torch.randn(CLASSES, SENTENCES, backbone.embed_dim, device=device)
    published = Published(backbone, class_names(CLASSES, WORDS), teacher, BiomedCoOpSettings())
    pixels, labels = torch.randn(BATCH, 3, size, size, device=device), torch.arange(BATCH, device=device) % CLASSES
    return seconds_of(lambda: published.step(pixels, labels), device, 1 if setting.dry else 10)


# --- parts --------------------------------------------------------------------------------------------------------


def steps(setting: Setting) -> Iterator[Row]:
    """A training step, with one run and six in a pass; the published step beside one run."""
    backbone, names = loaded(setting), class_names(CLASSES, WORDS)
    theirs = 1000 * published_step(backbone, setting)
    few = 1 if setting.dry else 50
    for precision in ("float32", "bfloat16"):
        if precision == "bfloat16":
            coarsen_text(backbone)
        for runs in (1, 6):
            ours, recording = step_of(backbone, names, runs, few)
            note = f"the first steps and the recording take {recording:.2f} s more"
            yield Row(f"step, {runs} together, text in {precision}", "ms a run", 1000 * ours / runs, theirs, note)


def step_of(backbone: OpenClipBackbone, names: tuple[str, ...], runs: int, few: int) -> tuple[float, float]:
    """Seconds of a step, from the difference of a long and a short training, and what the short one took beside its steps."""
    method, settings, seeds = get_method("biomedcoop"), BiomedCoOpSettings(), range(1, runs + 1)
    assert isinstance(method, ContextMethod)
    task = random_task(backbone, names, CLASSES * SHOTS, SENTENCES, runs)

    def trained(count: int) -> None:
        prompts = ClassPrompts(backbone, names, settings)
        prompts.prepack(count)
        context = prompts.initial_context(seeds).requires_grad_()
        drawn = batches(CLASSES * SHOTS, BATCH, count, settings.lr, seeds)
        method.train(task, settings, prompts, context, [next(drawn) for _ in range(count)], seeds)

    short, long = (seconds_of(lambda n=n: trained(n), backbone.device, 1) for n in (few, 5 * few))  # type: ignore[misc]
    step = (long - short) / (4 * few)
    return step, short - few * step


def encoding(setting: Setting) -> Iterator[Row]:
    """Images a second from crops in memory; the published way encodes batches of 100 and computes every token."""
    count = 4 if setting.dry else 1024
    for precision in ("float32", "bfloat16"):
        backbone = loaded(setting, precision)
        size, device = backbone.image_size, backbone.device
        crops = list(np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8))
        theirs = None
        if precision == "float32":
            pixels = torch.randn(min(100, count), 3, size, size, device=device)
            with torch.no_grad():
                theirs = len(pixels) / seconds_of(lambda b=backbone, x=pixels: encode_images(b, x), device)  # type: ignore[misc]
        ours = count / seconds_of(lambda b=backbone, c=crops: encode_crops(b, c), device)  # type: ignore[misc]
        note = "ours from crops on the host, the published way from pixels on the device"
        yield Row(f"encoding in {precision}", "images/s", ours, theirs, note)


def runs(setting: Setting) -> Iterator[Row]:
    """``biomedcoop train`` as a process of its own, with an empty store and with a filled one."""
    names, place = class_names(CLASSES, WORDS), setting.place
    write_jpegs(place / "scans", {"train": SHOTS, "test": 2 if setting.dry else 100}, names)
    write_sentences(place / "sentences.json", names, count=2 if setting.dry else SENTENCES)
    step = published_step(loaded(setting), setting)
    extra = ["--device", setting.device, "--precision", "float32", *(["--set", "epochs=1"] if setting.dry else [])]
    for recipe in ("fast", "paper"):
        for store in ("cold", "warm"):
            taken = train(place, setting.backbone, Variant(recipe), place / f"cache-{recipe}", extra).seconds
            yield Row(f"whole run, recipe {recipe}, {store} store", "s", taken, PUBLISHED_STEPS * step)


def study(setting: Setting) -> Iterator[Row]:
    """BiomedCoOp on 11 simulated datasets at 5 numbers of shots with 3 seeds, from empty folders to the report."""
    os.environ["BIOMEDCOOP_CACHE"] = str(setting.place / "cache-study")
    kinds = range(1 if setting.dry else DATASETS)
    asked = Protocol.of(
        {
            "format": 1,
            "kind": "few-shot",
            "datasets": [f"simulated:breast-ultrasound?train=20&val=4&test=10&seed={n}" for n in kinds],
            "methods": ["biomedcoop"],
            "backbones": [str(setting.backbone)],
            "shots": list(STUDY_SHOTS[:1] if setting.dry else STUDY_SHOTS),
            "seeds": list(SEEDS),
            "variants": [],
            **(
                {"variants": [{"name": "short", "method": "biomedcoop", "settings": {"epochs": 1}}]}
                if setting.dry
                else {}
            ),
        }
    )
    begin = time.perf_counter()
    done = run_benchmark(asked, setting.place / "study", device=setting.device, jobs=1, progress=False)
    yield Row(f"study of {done.done} runs", "s", time.perf_counter() - begin, note=f"{done.failed} failed")


PARTS: dict[str, tuple[float, Callable[[Setting], Iterator[Row]]]] = {
    "steps": (0.2, steps),
    "encoding": (0.1, encoding),
    "runs": (0.3, runs),
    "study": (0.4, study),
}
"""Part -> its share of the time, and what measures it."""


# --- the whole ----------------------------------------------------------------------------------------------------


def measured(part: str, setting: Setting, seconds: float) -> tuple[list[Row], str]:
    """The rows of a part in a process of its own, and why there are no more; empty if it ended well."""
    words = [sys.executable, "-m", "benchmarks.speed.gpu", "--part", part, "--place", str(setting.place)]
    words += ["--device", setting.device, "--backbone", str(setting.backbone), *(["--dry"] if setting.dry else [])]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        out, err = child.communicate(timeout=seconds)
        reason = "" if child.returncode == 0 else (err.strip().splitlines() or ["ended without a word"])[-1]
    except subprocess.TimeoutExpired:
        reason = f"ended after its {seconds:.0f} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # with the processes that it started
    if reason.startswith("ended after"):
        out, _ = child.communicate()
    return [Row(**json.loads(line)) for line in out.splitlines() if line.startswith('{"what"')], reason


def machine(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    return f"{name}, torch {torch.__version__}, {os.cpu_count()} CPU cores"


def table(rows: list[Row], notes: list[str]) -> Table:
    cells = []
    for row in rows:
        faster = ""
        if row.published:
            faster = f"{row.ours / row.published if row.unit == 'images/s' else row.published / row.ours:.1f}"
        theirs = "" if row.published is None else f"{row.published:.1f}"
        cells.append([row.what, row.unit, f"{row.ours:.2f}", theirs, faster, row.note])
    return Table(["what", "unit", "ours", "published way", "times as fast", ""], cells, notes=notes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="gets gpu.json and gpu.md")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu for a dry check")
    parser.add_argument("--minutes", type=positive, default=8, help="after which the script has ended")
    parser.add_argument(
        "--backbone", type=Path, metavar="FOLDER", help="in open_clip layout; by default random weights"
    )
    parser.add_argument("--dry", action="store_true", help="few steps and images")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        for row in PARTS[given.part][1](Setting(given.place, given.backbone, given.device, given.dry)):
            print(json.dumps(asdict(row)), flush=True)
        return
    if given.out is None:
        parser.error("--out FOLDER is missing; the tables are written there")
    end = time.monotonic() + 60 * given.minutes - ENDING
    device = usable_device(given.device)
    given.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    notes = [machine(device) + ("; a dry check: these numbers mean nothing" if given.dry else "") + "."]
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        setting = Setting(place, given.backbone or write_bin(place / "backbone"), given.device, given.dry)
        for part, (share, _) in PARTS.items():
            left = sum(own for name, (own, _) in PARTS.items() if list(PARTS).index(name) >= list(PARTS).index(part))
            found, reason = measured(part, setting, max(1.0, (end - time.monotonic()) * share / left))
            rows += found
            notes += [f"{part}: {reason}."] if reason else []
            # after each part, so that a machine that is taken away loses one part at most
            content = {
                "machine": machine(device),
                "dry": given.dry,
                "rows": [asdict(row) for row in rows],
                "notes": notes,
            }
            write_atomically(given.out / "gpu.json", json.dumps(content, indent=1).encode() + b"\n")
            write_atomically(given.out / "gpu.md", table(rows, notes).markdown().encode() + b"\n")
    print(table(rows, notes).markdown())


if __name__ == "__main__":
    start(main)
