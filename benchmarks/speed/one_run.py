"""A whole run at BiomedCLIP's size, from the command line to the report, beside the published way and the machine's limits.

    python -m benchmarks.speed.one_run [RECIPE[:NAME=VALUE[,NAME=VALUE]] …] [--backbone FOLDER] [--extra "--precision auto"]

16 shots of 4 classes, 400 test images, 50 sentences of 30 tokens a class; random weights, drawn JPEG files of 488 × 512 px. Ours is
``python -m biomedcoop train`` in a fresh process, first with an empty feature store, then with what the first run left in it.
The published way (``published.py``) takes over an hour: each kind of its work is measured a few times and multiplied. Of a run that
takes a new random crop of each image in each epoch, as published (``--views per-epoch``), the floor is printed and no more.
"""

from __future__ import annotations

import argparse
import json
import os
import pstats
import shlex
import statistics
import sys
import tempfile
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.command import positive, start
from benchmarks.speed.floors import Costs, Finished, Limits, Machine, run_process, timings
from benchmarks.speed.full_size import write_bin
from benchmarks.speed.inputs import class_names, write_jpegs
from benchmarks.speed.published import Published, encode_images, encode_texts, load, padded
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.open_clip import OpenClipBackbone
from biomedcoop.cli.options import parse_settings
from biomedcoop.methods import get_method
from biomedcoop.methods.biomedcoop import BiomedCoOpSettings
from biomedcoop.methods.recipes import RECIPES
from biomedcoop.methods.training import steps_in
from biomedcoop.report.table import Table

CLASSES, SHOTS, TEST_IMAGES, SENTENCES, BATCH, TEST_BATCH = 4, 16, 400, 50, 4, 100
NAME_WORDS, SENTENCE_WORDS = 3, 28
PROMPT_TOKENS, SENTENCE_TOKENS = NAME_WORDS + 7, SENTENCE_WORDS + 2
PUBLISHED_STEPS = steps_in(CLASSES * SHOTS, BATCH, BiomedCoOpSettings().epochs)

GOALS = {("paper", "cold"): 20, ("paper", "warm"): 25, ("fast", "cold"): 60, ("fast", "warm"): 150}
COARSE_GOALS = {("fast", "cold"): 120, ("fast", "warm"): 400}
"""On a CPU with AMX, with ``--extra "--precision auto"``."""

PARTS = {
    "load the backbone": ("backbones/registry.py", "load_backbone"),
    "encode images": ("features/images.py", "encode_images"),
    "encode sentences": ("features/texts.py", "encode_texts"),
    "train": ("methods/context.py", "fit"),
    "score the test images": ("evaluation/metrics.py", "score"),
}
"""Where a run's time goes: functions that do not call one another."""


@dataclass(frozen=True)
class Variant:
    """A recipe, with settings of the method in place of its own."""

    recipe: str
    given: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Variant:
        """``paper`` or ``paper:epochs=50,lr=0.01``."""
        recipe, _, given = text.partition(":")
        return cls(recipe, tuple(filter(None, given.split(","))))

    def __str__(self) -> str:
        return " ".join([f"`{self.recipe}`", *self.given])

    def options(self) -> list[str]:
        return ["--recipe", self.recipe, *(word for pair in self.given for word in ("--set", pair))]

    def steps(self) -> int:
        settings = get_method("biomedcoop").settings(parse_settings(list(self.given)), self.recipe)
        return steps_in(CLASSES * SHOTS, settings.batch_size, settings.epochs)


# --- inputs -------------------------------------------------------------------------------------------------------


def write_sentences(path: Path, names: Sequence[str], count: int = SENTENCES) -> None:
    """Different sentences of random words that are one token each."""
    generator = np.random.default_rng(1)
    table = {
        name: [" ".join(f"word{n}" for n in generator.integers(0, 2000, SENTENCE_WORDS)) for _ in range(count)]
        for name in names
    }
    path.write_text(json.dumps(table))


# --- ours ---------------------------------------------------------------------------------------------------------


def train(
    place: Path, backbone: Path, variant: Variant, cache: Path, extra: Sequence[str] = (), profile: Path | None = None
) -> Finished:
    """``biomedcoop train`` in a fresh process on the files in ``place``."""
    python = [sys.executable, *(["-m", "cProfile", "-o", str(profile)] if profile else [])]
    command = [*python, "-m", "biomedcoop", "train", "--data", str(place / "scans"), "--method", "biomedcoop"]
    command += ["--backbone", str(backbone), "--shots", str(SHOTS), "--prompts", str(place / "sentences.json")]
    command += [*variant.options(), *extra]
    command += ["--out", str(place / "run"), "--overwrite"]
    return run_process(command, cache)


def parts_of(profile: Path) -> dict[str, float]:
    """Seconds of each part of a profiled run, and of all the rest."""
    stats = pstats.Stats(str(profile))
    found = {part: 0.0 for part in PARTS}
    for (file, _, name), (*_, cumulative, _callers) in stats.stats.items():  # type: ignore[attr-defined]
        for part, (where, function) in PARTS.items():
            if name == function and file.endswith(f"biomedcoop/{where}"):
                found[part] += cumulative
    return {**found, "the rest: imports, reading, report": stats.total_tt - sum(found.values())}  # type: ignore[attr-defined]


# --- the published way --------------------------------------------------------------------------------------------


def published_works(
    folder: Path, backbone: OpenClipBackbone, names: Sequence[str], sentences: Sequence[str]
) -> dict[Hashable, tuple[Callable[[], object], int]]:
    """Each kind of work of a published run, and how often it is done."""
    device, size = backbone.device, backbone.image_size
    teacher = torch.randn(CLASSES, SENTENCES, backbone.embed_dim, device=device)
    published, testing = (Published(backbone, names, teacher, BiomedCoOpSettings(), *drop) for drop in ((), (None,)))
    pixels = torch.randn(TEST_BATCH, 3, size, size, device=device)
    labels = torch.arange(BATCH, device=device) % CLASSES
    ids = padded(backbone, sentences[:CLASSES])

    def read_sentences() -> None:
        with torch.no_grad():
            encode_texts(backbone, backbone.embed_tokens(ids), backbone.mask(ids))

    def test() -> None:
        with torch.no_grad():
            (encode_images(backbone, pixels) @ testing.encode_prompts().T).argmax(1).tolist()

    return {
        "load the checkpoint": (lambda: load(folder, backbone.towers), 2),
        f"encode {CLASSES} sentences": (read_sentences, SENTENCES),
        "training step": (lambda: published.step(pixels[:BATCH], labels), PUBLISHED_STEPS),
        f"test {TEST_BATCH} images": (test, TEST_IMAGES // TEST_BATCH),
    }


# --- tables -------------------------------------------------------------------------------------------------------


def floors(costs: Costs, limits: Limits, steps: int, start: float, views: int = 1) -> dict[str, float]:
    """Seconds that each part of a run takes at least; ``start`` those of a process that only imports torch."""
    images = CLASSES * SHOTS * views + TEST_IMAGES
    return {
        "load the backbone": costs.checkpoint_bytes / limits.bandwidth,
        "encode images": limits.seconds(images * costs.of_image()),
        "encode sentences": limits.seconds(CLASSES * SENTENCES * costs.of_text(SENTENCE_TOKENS)),
        "train": steps * sum(costs.step(limits, CLASSES, PROMPT_TOKENS)),
        "the rest: imports, reading, report": start,
    }


def runs_table(
    theirs: float,
    runs: dict[tuple[Variant, str], list[Finished]],
    least: dict[Variant, dict[str, float]],
    fresh_crops: float,
    goals: Mapping[tuple[str, str], int] = GOALS,
) -> Table:
    rows: list[Sequence[object]] = [["published way, extrapolated", f"{theirs:.0f}", "1", "", "", ""]]
    for (variant, store), done in runs.items():
        seconds = statistics.median(run.seconds for run in done)
        kept = ("encode images", "encode sentences") if store == "warm" else ()
        floor = sum(value for part, value in least[variant].items() if part not in kept)
        goal = goals.get((variant.recipe, store), "")
        memory = max(run.memory for run in done) / 2**30
        rows.append(
            [
                f"{variant}, {store} store",
                f"{seconds:.1f}",
                f"{theirs / seconds:.1f}",
                goal,
                f"{floor:.1f}",
                f"{memory:.2f}",
            ]
        )
    rows.append(
        [
            "a new crop in each epoch, cold store",
            "",
            f"at most {theirs / fresh_crops:.1f}",
            "",
            f"{fresh_crops:.0f}",
            "",
        ]
    )
    return Table(["run", "s", "times as fast", "goal", "floor, s", "peak GiB"], rows)


def published_table(parts: dict[Hashable, tuple[list[float], int]]) -> Table:
    rows = [
        [part, f"{statistics.median(taken):.3f}", len(taken), times, f"{statistics.median(taken) * times:.0f}"]
        for part, (taken, times) in parts.items()
    ]
    return Table(["published way", "median s", "measured", "times", "s"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "recipes", nargs="*", metavar="RECIPE", default=[name for name in ("paper", "fast") if name in RECIPES]
    )
    parser.add_argument(
        "--backbone", type=Path, metavar="FOLDER", help="a full-size model in open_clip layout; by default random"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    parser.add_argument("--extra", default="", help="more options of 'train', in one word")
    parser.add_argument("--runs", type=positive, default=1, help="of each kind")
    parser.add_argument(
        "--repetitions", type=positive, default=2, help="of the published way's works, before and after ours"
    )
    given = parser.parse_args()
    variants = [Variant.parse(text) for text in given.recipes]
    steps = {variant: variant.steps() for variant in variants}
    load_before = os.getloadavg()[0]
    extra = [*shlex.split(given.extra), "--device", given.device]
    names = class_names(CLASSES, NAME_WORDS)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        folder = given.backbone or write_bin(place / "backbone")
        write_jpegs(place / "scans", {"train": SHOTS, "test": TEST_IMAGES // CLASSES}, names)
        write_sentences(place / "sentences.json", names)
        backbone = load_backbone(folder, device=given.device)
        assert isinstance(backbone, OpenClipBackbone)
        costs = Costs(backbone)
        works = published_works(folder, backbone, names, json.loads((place / "sentences.json").read_text())[names[0]])
        rows, width, hidden = CLASSES * PROMPT_TOKENS, costs.text.width, costs.text.mlp_width
        machine = Machine([(rows, width, hidden), (8 * 197, costs.image.width, costs.image.mlp_width)], backbone.device)
        timed = {
            **{part: work for part, (work, _) in works.items()},
            "start": lambda: run_process([sys.executable, "-c", "import torch"], place),
            **machine.works(),
        }
        before = timings(timed, given.repetitions, backbone.device)
        runs: dict[tuple[Variant, str], list[Finished]] = {}
        for n in range(given.runs):
            for variant in variants:
                for store in ("cold", "warm"):
                    cache = place / f"cache-{n}-{variants.index(variant)}"
                    done = train(place, folder, variant, cache, extra)
                    runs.setdefault((variant, store), []).append(done)
                    print(f"{variant}, {store}: {done.seconds:.1f} s", file=sys.stderr)
        spent = {}
        for variant in variants:
            train(place, folder, variant, place / f"cache-{variant.recipe}-profiled", extra, place / "profile")
            spent[variant] = parts_of(place / "profile")
        after = timings(timed, given.repetitions, backbone.device)
    taken = {name: [*seconds, *after[name]] for name, seconds in before.items()}
    limits = machine.limits(taken)
    theirs = {part: (taken[part], times) for part, (_, times) in works.items()}
    whole = sum(statistics.median(seconds) * times for seconds, times in theirs.values())
    begin = statistics.median(taken["start"])
    least = {v: floors(costs, limits, steps[v], begin) for v in variants}
    fresh_crops = sum(floors(costs, limits, PUBLISHED_STEPS, begin, BiomedCoOpSettings().epochs).values())
    print(
        f"{given.device}, {torch.get_num_threads()} threads, load average before the start {load_before:.1f}"
        f"{', train ' + given.extra if given.extra else ''}; {SHOTS} shots, {CLASSES} classes, {TEST_IMAGES} test images of "
        "488 × 512 px, prompts of 10 tokens. Ours: whole processes, the checkpoint in the page cache.",
        "",
        runs_table(
            whole, runs, least, fresh_crops, GOALS | (COARSE_GOALS if "--precision" in extra else {})
        ).markdown(),
        "",
        "The published way is **extrapolated** from works measured before and after ours; the start of its process, its imports "
        "and its reading of images are not counted:",
        "",
        published_table(theirs).markdown(),
        sep="\n",
    )
    for variant, seconds in spent.items():
        rows_of = [
            [part, f"{value:.1f}", f"{least[variant][part]:.1f}" if part in least[variant] else ""]
            for part, value in seconds.items()
        ]
        head = [f"{variant}, cold, another run under the profiler", "s", "floor, s"]
        print("", Table(head, rows_of).markdown(), sep="\n")
    print("", limits.table().markdown(), sep="\n")


if __name__ == "__main__":
    start(main)
