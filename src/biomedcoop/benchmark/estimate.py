"""What a benchmark will cost, before the work: runs, hours from a short measurement, and disk."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from biomedcoop.benchmark.compute import Work
from biomedcoop.benchmark.journal import SPEEDS
from biomedcoop.benchmark.plan import Group, backbone_name
from biomedcoop.data.sampling.few_shot import MAX_VAL_SHOTS
from biomedcoop.data.sampling.folds import FOLDS
from biomedcoop.lazy import torch
from biomedcoop.methods import Task
from biomedcoop.methods.recipes import PUBLISHED
from biomedcoop.methods.training import steps_in
from biomedcoop.threads import torch_threads

if TYPE_CHECKING:
    from biomedcoop.backbones.base import Backbone

LONG_ENOUGH = 0.3
"""Seconds of training that are measured, at least two epochs."""

SCORED = 4
"""Images of the measured prediction."""

OVERHEAD = 0.02
"""Seconds that a group takes beside training and prediction."""

SENTENCES = 50
LINE_BYTES = 450
"""Bytes of a line in the results beside the right answers."""


@dataclass(frozen=True)
class Speed:
    """Measured speed of a row on a backbone.

    Attributes:
        base: seconds of a fit outside its training steps; of the whole fit of a method without epochs.
        step: seconds of a training step of all seeds.
        image: seconds to score an image with one run; 0 where no text tower runs for each image.
        classes: number of classes in the measurement; both grow with it.
    """

    base: float
    step: float
    image: float
    classes: float


@dataclass(frozen=True)
class Cost:
    """What is left to do.

    Attributes:
        runs: number of runs.
        seconds: id of a group -> estimated seconds on one process.
        images: images without stored features.
        encoding: estimated seconds to encode them, on all cores; None where no image was encoded to measure it.
        disk: bytes of features and results.
        speeds: "backbone/method" -> its measured speed; one that could not be measured is left out.
    """

    runs: int
    seconds: Mapping[str, float]
    images: int
    encoding: float | None
    disk: int
    speeds: Mapping[str, Speed]

    def to_dict(self, jobs: int) -> dict[str, Any]:
        """The cost as JSON values.

        Args:
            jobs: number of parallel processes.
        """
        return {
            "images_to_encode": self.images,
            "encoding_seconds": None if self.encoding is None else round(self.encoding, 1),
            "computing_seconds": round(sum(self.seconds.values()) / jobs, 1),
            "disk_bytes": self.disk,
        }

    def lines(self, jobs: int) -> list[str]:
        """Sentences for the user.

        Args:
            jobs: number of parallel processes.
        """
        found = []
        if self.images:
            how_long = "" if self.encoding is None else f", about {in_words(self.encoding)}"
            found.append(f"images to encode: {self.images:,}{how_long}")
        groups = len(self.seconds)
        training = in_words(sum(self.seconds.values()) / jobs)
        processes = f"{jobs} processes" if jobs > 1 else "1 process"
        found.append(
            f"runs to compute: {self.runs:,} in {groups:,} group{'s' * (groups != 1)}, about {training} with {processes}"
        )
        found.append(f"disk: about {max(1, round(self.disk / 1e6)):,} MB of features and results")
        return found


def in_words(seconds: float) -> str:
    """A rough duration.

    Example:
        >>> in_words(42), in_words(150), in_words(7 * 3600)
        ('42 s', '2.5 min', '7.0 h')
    """
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def measure_speeds(
    work: Work,
    groups: Iterable[Group],
    known: Mapping[str, Speed],
    tick: Callable[[int, int], None] | None = None,
) -> dict[str, Speed]:
    """The speed of each method on each backbone, from one short measurement of those that are not known.

    The measurement trains a few steps on random features: what a step costs does not depend on what the features hold.

    Args:
        known: "backbone/method" -> speed, from an earlier call.
        tick: called with the number of measurements done and in total.
    """
    largest: dict[str, Group] = {}
    for group in groups:
        key = _key(group)
        if key not in known and (key not in largest or largest[key].shots < group.shots):
            largest[key] = group
    found = dict(known)
    for done, (key, group) in enumerate(largest.items(), start=1):
        # a fault may be of any kind, also in a user's code; the runs of the method will give the reason
        with suppress(Exception):
            found[key] = _measure(work, group, work.load(group.backbone))
        if tick is not None:
            tick(done, len(largest))
    return found


def read_speeds(folder: Path) -> dict[str, Speed]:
    """The speeds that an earlier call kept in an output folder; empty without a usable file: they are measured again then."""
    try:
        kept = json.loads((folder / SPEEDS).read_text(encoding="utf-8"))
        return {key: Speed(**{name: float(value) for name, value in speed.items()}) for key, speed in kept.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _key(group: Group) -> str:
    return f"{backbone_name(group.backbone)}/{group.row.method}"


def seconds_of(work: Work, group: Group, speeds: Mapping[str, Speed]) -> float:
    """Estimated seconds of a group on one process.

    Args:
        speeds: see :func:`measure_speeds`; a method that is not among them counts as instant.
    """
    speed = speeds.get(_key(group), Speed(0.0, 0.0, 0.0, 1))
    classes, settings = _classes(work, group), _settings(group)
    epochs = getattr(settings, "epochs", None)
    images = group.shots * classes
    steps = 0 if epochs is None else steps_in(images, getattr(settings, "batch_size", images), epochs)
    scored = sum(_tested(work, name) for name in work.protocol.tested_on(group.dataset)) * len(group.seeds)
    grows = classes / speed.classes
    return OVERHEAD + grows * (speed.base + steps * speed.step + scored * speed.image)


def disk_bytes(work: Work, groups: Iterable[Group], images: int) -> int:
    """Bytes that the features of new images and the lines of the results take."""
    total = 0
    for group in groups:
        tested = sum(_tested(work, name) for name in work.protocol.tested_on(group.dataset))
        total += len(group.seeds) * (LINE_BYTES + tested // 6)
    widths = [work.load(backbone).embed_dim for backbone in work.protocol.backbones[:1]]
    return total + images * 4 * max(widths)


def _classes(work: Work, group: Group) -> int:
    """Number of classes that are trained."""
    facts = work.sources[group.dataset].facts
    assert facts is not None
    count = len(facts["classes"])
    return (count + 1) // 2 if group.kind == "base-to-novel" else count


def _tested(work: Work, dataset: str) -> int:
    facts = work.sources[dataset].facts
    return 0 if facts is None else int(facts["images"]["test"] or sum(facts["images"].values()))


def _measure(work: Work, group: Group, backbone: Backbone) -> Speed:
    """Train a few steps, or fit once where there are none, and score a few images."""
    classes, method = _classes(work, group), group.method
    settings = _settings(group)
    epochs, size = getattr(settings, "epochs", None), getattr(settings, "batch_size", None)
    images = group.shots * classes
    if epochs is not None and size is not None:
        images = min(images, max(size, classes))
    task = _random_task(backbone, group, classes, images)
    seeds = list(range(len(group.seeds)))

    def fit(epochs: int | None) -> tuple[float, list[Any]]:
        own = settings if epochs is None else dataclasses.replace(settings, epochs=epochs)
        begin = time.perf_counter()
        states = method.fit(task, own, seeds)
        return time.perf_counter() - begin, states

    with torch_threads(work.threads):
        base, states = fit(None if epochs is None else 1)
        step = 0.0
        if epochs is not None and epochs > 1:
            base, states = fit(1)  # once more: the first one has loaded what it needs
            more = min(epochs, max(2, round(LONG_ENOUGH / base)))
            step = max(0.0, fit(more)[0] - base) / steps_in(images, size or images, more - 1)
            base = max(0.0, base - step * steps_in(images, size or images, 1))
        if not method.abilities.prompts_per_image:
            return Speed(base, step, 0.0, classes)
        begin = time.perf_counter()
        with torch.inference_mode():
            method.logits(states[0], task.features.new_ones(SCORED, backbone.embed_dim), backbone)
    return Speed(base, step, (time.perf_counter() - begin) / SCORED, classes)


def _settings(group: Group) -> Any:
    return group.method.settings(group.row.settings, group.recipe)


def _random_task(backbone: Backbone, group: Group, classes: int, images: int) -> Task:
    """A task of this size with random features."""
    generator, width = torch.Generator().manual_seed(0), group.method.read_from(backbone).embed_dim
    runs, able = len(group.seeds), group.method.abilities

    def drawn(*shape: int) -> Any:
        return torch.randn(*shape, width, generator=generator).to(backbone.device)

    def labels(count: int) -> Any:
        return torch.from_numpy(np.tile(np.arange(count) % classes, (runs, 1))).to(backbone.device)

    validated = group.method.chooses(_settings(group)) and group.recipe in PUBLISHED and group.kind != "realistic"
    count = min(group.shots, MAX_VAL_SHOTS) * classes if validated else 0
    each = torch.arange(images)  # what is chosen within the training images takes most of a fit's time
    folds = each if able.leaves_one_out and images > classes else each // classes % FOLDS
    return Task(
        backbone,
        [f"tissue {label}" for label in range(classes)],
        drawn(runs, images),
        labels(images),
        drawn(classes, SENTENCES) if able.uses_sentences else None,
        drawn(runs, count) if count else None,
        labels(count) if count else None,
        folds=folds.expand(runs, -1).contiguous() if able.chooses and not validated else None,
    )
