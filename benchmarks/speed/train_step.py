"""Seconds of a training step at BiomedCLIP's size, the published way and ours, beside the machine's limits.

    python -m benchmarks.speed.train_step [--backbone FOLDER] [--device cuda] [--repetitions 9] [--bfloat16]

Random weights, 4 classes, batches of 4. Ours is the package's own training on stored features, one run alone and six together; the
published way is re-enacted (``published.py``), and counts only where its parts have the shares that were measured of the original.
``--bfloat16`` measures ours with the text tower in bfloat16 too, beside the same published step in float32.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

import torch

from benchmarks.command import positive, start
from benchmarks.speed.floors import Costs, Limits, Machine, clock, timings
from benchmarks.speed.full_size import write_bin
from benchmarks.speed.inputs import class_names, random_task
from benchmarks.speed.published import MEASURED, MEASURED_STEP, Published
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.open_clip import OpenClipBackbone
from biomedcoop.methods import get_method
from biomedcoop.methods.biomedcoop import BiomedCoOpSettings
from biomedcoop.methods.context import MANY_PASSES, ClassPrompts, ContextMethod
from biomedcoop.methods.training import batches
from biomedcoop.report.table import Table

CLASSES, SHOTS, SENTENCES, BATCH = 4, 16, 50, 4
TOKENS, RUNS = (10, 16), (1, 6)
STEPS = {1: 5, 6: 2}
"""Steps of one timing: training repeats them, so they are not to meet only what the published step left in the caches."""
CUDA_TIMES = 100
"""So many times more on CUDA, where each training first records its step."""
GOALS = {
    "float32": {(10, 1): 20, (16, 1): 20, (10, 6): 40, (16, 6): 30},
    "bfloat16": {(10, 1): 60, (10, 6): 100},  # on a CPU with AMX
}
SHARE_GOAL = 0.75
AGREEMENT = 0.15

Taken = dict[Hashable, list[float]]


class Ours:
    """R runs of the package's training on stored features, with prompts of so many tokens."""

    def __init__(self, backbone: OpenClipBackbone, tokens: int, runs: int) -> None:
        method = get_method("biomedcoop")
        assert isinstance(method, ContextMethod)
        self.method, self.settings = method, BiomedCoOpSettings()
        self.tokens, self.runs = tokens, runs
        self.precision = str(backbone.dtype).removeprefix("torch.")
        self.key = self.precision, tokens, runs
        self.steps = STEPS[runs] * (CUDA_TIMES if backbone.device.type == "cuda" else 1)
        # [CLS], four learned vectors, the name, a full stop and [SEP]
        names = class_names(CLASSES, tokens - 7)
        self.task = random_task(backbone, names, CLASSES * SHOTS, SENTENCES, runs)
        self.seeds = range(1, runs + 1)
        self.prompts = ClassPrompts(backbone, names, self.settings)
        if self.prompts.fixed.shape[1] != tokens:
            raise SystemExit(f"prompts have {self.prompts.fixed.shape[1]} tokens, not {tokens}: another vocabulary")
        self.context = self.prompts.initial_context(self.seeds).requires_grad_()
        self.setting_out = self.lay_out()
        # one rate for all epochs but the first, which would go on for ever
        self.schedule = batches(CLASSES * SHOTS, BATCH, 10**6, self.settings.lr, self.seeds)

    def lay_out(self) -> float:
        """Lay out the weights, as before a whole training, and say how many seconds that takes."""
        self.prompts.prepack(MANY_PASSES)
        first, second = (self.text_pass(1) for _ in range(2))
        return max(0.0, first - second)

    def train(self) -> None:
        steps = [next(self.schedule) for _ in range(self.steps)]
        self.method.train(self.task, self.settings, self.prompts, self.context, steps, self.seeds)

    def text_pass(self, times: int = 0) -> float:
        """Seconds of the text tower forward and back, alone."""
        start = clock(self.task.backbone.device)
        for _ in range(times or self.steps):
            torch.autograd.grad(self.prompts.encode(self.context).sum(), self.context)
        return clock(self.task.backbone.device) - start


def measure(
    backbones: Sequence[OpenClipBackbone], tokens: Sequence[int], runs: Sequence[int], repetitions: int
) -> tuple[Published, list[Ours], Taken, Limits]:
    """Everything in turn: the published step, ours of every kind, products of several shapes, a reading of memory.

    Args:
        backbones: the first in float32, others with another precision of the text tower.
    """
    torch.manual_seed(0)
    backbone = backbones[0]
    device = backbone.device
    teacher = torch.randn(CLASSES, SENTENCES, backbone.embed_dim, device=device)
    published = Published(backbone, class_names(CLASSES, tokens[0] - 7), teacher, BiomedCoOpSettings())
    size = backbone.image_size
    pixels = torch.randn(BATCH, 3, size, size, device=device)
    labels = torch.arange(BATCH, device=device) % CLASSES
    kinds = [Ours(own, t, r) for own in backbones for t in tokens for r in runs]
    width, hidden = backbone.token_dim, backbone.towers.text.transformer.config.mlp_width
    rows = [CLASSES * kind.tokens * kind.runs for kind in kinds] + [CLASSES * backbone.context_length]
    shapes = [shape for n in rows for shape in ((n, width, hidden), (n, hidden, width))]
    machine = Machine(shapes, device)
    works: dict[Hashable, Callable[[], object]] = {"published": lambda: published.step(pixels, labels)}
    for kind in kinds:
        works["ours", kind.key] = kind.train
        works["text", kind.key] = kind.text_pass
    taken = timings({**works, **machine.works()}, repetitions, device)
    return published, kinds, taken, machine.limits(taken)


def agreement(published: Published) -> Table:
    """The parts of the re-enacted step beside those of the original, as shares of the step."""
    # the first step does not count, as in the timings
    own = {part: values[1:] for part, values in published.seconds.items()}
    steps = [sum(values) for values in zip(*own.values(), strict=True)]
    rows, off = [], []
    for part, values in own.items():
        cells: list[str] = []
        for which, (measure, step) in enumerate(zip((statistics.median, min), MEASURED_STEP, strict=True)):
            theirs = MEASURED[part][which] if part in MEASURED else step - sum(m[which] for m in MEASURED.values())
            share, wanted = measure(values) / measure(steps), theirs / step
            cells += [f"{measure(values):.3f}", f"{share:.1%}", f"{wanted:.1%}", f"{share / wanted - 1:+.0%}"]
            if part in MEASURED and abs(share / wanted - 1) > AGREEMENT:
                off.append(f"{part} ({('median', 'least')[which]})")
        rows.append([part, *cells])
    head = ["part of the step", "median s", "share", "original", "off", "least s", "share", "original", "off"]
    verdict = (
        f"Not within {AGREEMENT:.0%} of the original's share: {', '.join(off)}."
        if off
        else f"Every part is within {AGREEMENT:.0%} of the original's share (the rest, too short to compare, aside)."
    )
    total = f"Step: median {statistics.median(steps):.2f} s, least {min(steps):.2f} s; "
    original = "the published code measured on two cores (float32, torch 2.13): {:.2f} s and {:.2f} s.".format(
        *MEASURED_STEP
    )
    return Table(head, rows, notes=[total + original, verdict])


def comparison(costs: Costs, kinds: Sequence[Ours], taken: Taken, limits: Limits) -> Table:
    rows = []
    theirs = statistics.median(taken["published"])
    for kind in kinds:
        ours, text = (statistics.median(taken[what, kind.key]) / kind.steps for what in ("ours", "text"))
        goal, exact = GOALS[kind.precision].get((kind.tokens, kind.runs), ""), kind.precision == "float32"
        prompts = CLASSES * kind.runs
        flops = sum(prompts * costs.of_text(kind.tokens, backward=back) for back in (False, True))
        floor = sum(costs.step(limits, prompts, kind.tokens))
        rows.append(
            [
                f"{kind.tokens} tokens, {kind.runs} run{'s' * (kind.runs > 1)}{'' if exact else ', bfloat16'}",
                f"{1000 * theirs:.0f}",
                f"{1000 * ours / kind.runs:.1f}",
                f"{theirs * kind.runs / ours:.1f}",
                str(goal),
                f"{1000 * text / kind.runs:.1f}",
                # the rates are those of float32
                f"{1000 * floor / kind.runs:.1f}" if exact else "",
                f"{'bytes' if floor > 1.001 * flops / limits.best else 'FLOPs'}" if exact else "",
                f"{flops / text / limits.best:.0%}" if exact else "",
            ]
        )
    head = [
        "ms a step and run",
        "published",
        "ours",
        "ratio",
        "goal",
        "text pass",
        "its floor",
        "limit",
        "of best rate",
    ]
    note = (
        f"Medians; ratio: published over ours, goal: at least. The text pass is the tower forward and back, and its goal is "
        f"{SHARE_GOAL:.0%} of the best rate for 6 runs. The published step costs the same for any prompt, padded to 256 tokens. "
        f"Once for a whole training, weights are laid out for its products in {max(k.setting_out for k in kinds):.1f} s."
    )
    return Table(head, rows, notes=[note])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--backbone", type=Path, metavar="FOLDER", help="a full-size model in open_clip layout; by default random"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    parser.add_argument("--repetitions", type=positive, default=9, help="of each work")
    parser.add_argument("--tokens", type=positive, nargs="+", default=TOKENS, help="lengths of the prompts")
    parser.add_argument("--runs", type=positive, nargs="+", default=RUNS, choices=STEPS, help="trained in one pass")
    parser.add_argument("--bfloat16", action="store_true", help="ours with a text tower in bfloat16 too")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as place:
        folder = given.backbone or write_bin(Path(place))
        dtypes = [torch.float32, *([torch.bfloat16] if given.bfloat16 else [])]
        loaded = [load_backbone(folder, device=given.device, dtype=dtype) for dtype in dtypes]
        backbones = [backbone for backbone in loaded if isinstance(backbone, OpenClipBackbone)]
        published, kinds, taken, limits = measure(backbones, given.tokens, given.runs, given.repetitions)
    print(
        f"{given.device}, {torch.get_num_threads()} threads, {given.repetitions} rounds in one process, load "
        f"average before the start {load:.1f}; {CLASSES} classes, batch {BATCH}, {SENTENCES} sentences a class.",
        "",
        comparison(Costs(backbones[0]), kinds, taken, limits).markdown(),
        "",
        agreement(published).markdown(),
        "",
        limits.table().markdown(),
        sep="\n",
    )


if __name__ == "__main__":
    start(main)
