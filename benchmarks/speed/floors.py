"""What a machine allows at most, and how the speed benchmarks measure against it.

A floor is the time that the products of a computation take at the best rate which matrix products of several shapes reach in the
same run, or the time to read its bytes once at the memory's bandwidth, whichever is longer. Works that are compared run in turn.
"""

from __future__ import annotations

import itertools
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from biomedcoop.backbones.bert import BertConfig
from biomedcoop.backbones.efficientnet_lite import EfficientNetLiteConfig
from biomedcoop.backbones.open_clip import ImageConfig, OpenClipBackbone
from biomedcoop.report.table import Table

Name = TypeVar("Name", bound=Hashable)
Shape = tuple[int, int, int]

SQUARES = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192)}
PRODUCT_FLOPS = {"cpu": 4e9, "cuda": 1e12}
"""Least work of one timed product: long beside the clock and the start of a kernel, short beside a benchmark."""
STREAM_BYTES = 2**29  # larger than any cache


# --- time ---------------------------------------------------------------------------------------------------------


def clock(device: torch.device) -> float:
    """Seconds; what was queued on the device is done by then."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def timings(
    works: Mapping[Name, Callable[[], object]], repetitions: int, device: torch.device
) -> dict[Name, list[float]]:
    """Wall seconds of each work, in turn, so that a change of the machine's load meets them all; the first round does not count."""
    taken: dict[Name, list[float]] = {name: [] for name in works}
    for repetition in range(repetitions + 1):
        for name, work in works.items():
            start = clock(device)
            work()
            if repetition:
                taken[name].append(clock(device) - start)
    return taken


@dataclass(frozen=True)
class Finished:
    """A process that ended well: seconds on the clock, the largest resident memory in bytes, and seconds on processors."""

    seconds: float
    memory: int
    processor: float = 0.0


# Linux counts what a process held before exec as its own: started from here, each would seem as large as the benchmark
WATCH = """
import os, sys, time
start = time.perf_counter()
_, status, usage = os.wait4(os.spawnv(os.P_NOWAIT, sys.argv[1], sys.argv[1:]), 0)
print(f"\\n{status} {time.perf_counter() - start} {usage.ru_maxrss} {usage.ru_utime + usage.ru_stime}")
"""


def run_process(command: Sequence[str], cache: Path) -> Finished:
    """A command from its start to its end, with a cache folder of its own.

    Raises:
        SystemExit: it failed; its output is the message.
    """
    # a user's Python keeps what it has compiled
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["BIOMEDCOOP_CACHE"] = str(cache)
    watched = [sys.executable, "-c", WATCH, *command]
    done = subprocess.run(watched, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    output, _, last = done.stdout.rstrip().rpartition("\n")
    status, seconds, kib, processor = last.split()
    if status != "0":
        raise SystemExit(f"{shlex.join(command)} failed:\n{output}")
    return Finished(float(seconds), 1024 * int(kib), float(processor))


def peak_mib() -> float:
    """Most memory that this process has held, MiB (Linux; what its parent held does not count, as it does in ``getrusage``)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


# --- what the machine can do --------------------------------------------------------------------------------------


def product(shape: Shape, device: torch.device) -> tuple[Callable[[], None], int]:
    """float32 products [m, k] × [k, n] one behind the other, and how many floating-point operations they are."""
    m, k, n = shape
    a, b = torch.randn(m, k, device=device), torch.randn(k, n, device=device)
    out = torch.empty(m, n, device=device)
    loops = max(1, round(PRODUCT_FLOPS[device.type] / (2 * m * k * n)))

    def run() -> None:
        with torch.inference_mode():
            for _ in range(loops):
                torch.mm(a, b, out=out)

    return run, loops * 2 * m * k * n


@dataclass(frozen=True)
class Limits:
    """What this machine reached in this run.

    Attributes:
        rates: by shape of the product, floating-point operations a second; medians.
        bandwidth: bytes a second of reading memory once; median.
    """

    rates: Mapping[Shape, float]
    bandwidth: float

    @property
    def best(self) -> float:
        return max(self.rates.values())

    def seconds(self, flops: float, size: float = 0.0) -> float:
        """Floor of a computation of so many operations that reads so many bytes."""
        return max(flops / self.best, size / self.bandwidth)

    def table(self) -> Table:
        rows = [
            (" × ".join(map(str, shape)), f"{rate / 1e9:.0f}{' (best)' if rate == self.best else ''}")
            for shape, rate in self.rates.items()
        ]
        return Table(("product", "GFLOP/s"), rows, notes=[f"Memory is read at {self.bandwidth / 1e9:.1f} GB/s."])


class Machine:
    """Works that show a machine's limits, to be timed in turn with what is measured.

    Args:
        shapes: the model's own products, beside square ones.
    """

    def __init__(self, shapes: Sequence[Shape], device: torch.device) -> None:
        shapes = [(side, side, side) for side in SQUARES[device.type]] + list(shapes)
        self.products = {shape: product(shape, device) for shape in dict.fromkeys(shapes)}
        self.stream = torch.ones(STREAM_BYTES // 4, device=device)

    def works(self) -> dict[Hashable, Callable[[], object]]:
        return {**{shape: run for shape, (run, _) in self.products.items()}, "stream": self.stream.sum}

    def limits(self, taken: Mapping[Hashable, Sequence[float]]) -> Limits:
        """From the seconds of :meth:`works`."""
        rates = {shape: flops / statistics.median(taken[shape]) for shape, (_, flops) in self.products.items()}
        return Limits(rates, STREAM_BYTES / statistics.median(taken["stream"]))


# --- what a computation costs -------------------------------------------------------------------------------------


def text_flops(
    tower: BertConfig, head: Sequence[int], tokens: int, *, every_token: bool = False, backward: bool = False
) -> int:
    """Operations of the products that one text costs, two for a multiplication with its addition.

    Args:
        head: widths of the projection, from the tower's own to the joint space's.
        every_token: the last layer computes all tokens, where only the CLS output is used.
        backward: the way back to the embeddings with frozen weights: each linear layer once, each attention product twice.
    """
    t, w, m = tokens, tower.width, tower.mlp_width
    asking = [t] * (tower.layers - 1) + [t if every_token else 1]
    linear = sum(2 * (2 * t + 2 * q) * w**2 + 4 * q * w * m for q in asking)  # keys, values | queries, output | MLP
    attention = sum(4 * q * t * w for q in asking)
    projection = sum(2 * a * b for a, b in itertools.pairwise(head))
    return linear + attention * (2 if backward else 1) + projection


def convolutions(tower: EfficientNetLiteConfig) -> list[Shape]:
    """Each convolution for one image as a product: positions, inputs of a position, outputs.

    A depthwise one has a single output of k * k inputs at the positions of every channel.
    """
    size = -(-tower.image_size // 2)
    shapes = [(size**2, 27, tower.stem)]
    for stage, blocks in enumerate(tower.stages):
        for block in blocks:
            if stage:
                shapes.append((size**2, block.inputs, block.hidden))
            size = -(-size // block.stride)
            shapes.append((size**2 * block.hidden, block.kernel**2, 1))
            shapes.append((size**2, block.hidden, block.outputs))
    return [*shapes, (size**2, tower.stages[-1][-1].outputs, tower.width)]


def map_bytes(tower: EfficientNetLiteConfig) -> int:
    """Bytes of all maps of one image in float32, each written once and read once."""
    return 2 * 4 * sum(positions * outputs for positions, _, outputs in convolutions(tower))


def image_flops(tower: ImageConfig, embed_dim: int, *, every_token: bool = False) -> int:
    """The same for one image, forward."""
    if isinstance(tower, EfficientNetLiteConfig):
        return sum(2 * m * k * n for m, k, n in convolutions(tower)) + 2 * tower.width * embed_dim
    t = (tower.image_size // tower.patch_size) ** 2 + 1
    w, m = tower.width, tower.mlp_width
    asking = [t] * (tower.layers - 1) + [t if every_token else 1]
    blocks = sum(2 * (2 * t + 2 * q) * w**2 + 4 * q * w * m + 4 * q * t * w for q in asking)
    return 2 * (t - 1) * 3 * tower.patch_size**2 * w + blocks + 2 * w * embed_dim


class Costs:
    """Operations and bytes of a backbone's passes."""

    def __init__(self, backbone: OpenClipBackbone) -> None:
        towers = backbone.towers
        self.text, self.image = towers.text.transformer.config, towers.visual.trunk.config
        proj = towers.text.proj
        hidden = [proj[0].out_features] if isinstance(proj, torch.nn.Sequential) else []
        self.head = [self.text.width, *hidden, backbone.embed_dim]
        self.every_token = towers.text.transformer.mean
        self.embed_dim = backbone.embed_dim
        matrices = [p for p in towers.text.parameters() if p.dim() == 2]
        embeddings = towers.text.transformer.embeddings.parameters()
        size = matrices[0].element_size()
        self.text_bytes = size * (sum(p.numel() for p in matrices) - sum(p.numel() for p in embeddings if p.dim() == 2))
        """Of the weights that one pass over any number of texts reads, and the way back again."""
        self.checkpoint_bytes = size * sum(p.numel() for p in towers.parameters())

    def of_image(self, *, every_token: bool = False) -> int:
        return image_flops(self.image, self.embed_dim, every_token=every_token)

    def of_text(self, tokens: int, *, every_token: bool = False, backward: bool = False) -> int:
        every_token = every_token or self.every_token
        return text_flops(self.text, self.head, tokens, every_token=every_token, backward=backward)

    def step(self, limits: Limits, prompts: int, tokens: int) -> tuple[float, float]:
        """Floors in seconds of the text pass of one training step and of its way back, for so many prompts."""
        forward = limits.seconds(prompts * self.of_text(tokens), self.text_bytes)
        return forward, limits.seconds(prompts * self.of_text(tokens, backward=True), self.text_bytes)
