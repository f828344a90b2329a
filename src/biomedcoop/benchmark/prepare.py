"""What happens once, before groups are computed: planning the grid, and encoding its images and sentences on all cores."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from biomedcoop.backbones.base import Backbone
from biomedcoop.benchmark.compute import Work
from biomedcoop.benchmark.journal import Journal
from biomedcoop.benchmark.plan import Group, groups_of, plan_group, sentences_of, test_sets, trained_part
from biomedcoop.benchmark.sources import read_source
from biomedcoop.data.dataset import Dataset
from biomedcoop.errors import ImageError, UserError
from biomedcoop.methods import check_towers, get_method
from biomedcoop.progress import Progress, counting
from biomedcoop.tasks.plan import Plan

_log = logging.getLogger("biomedcoop")

SAMPLE = 32
"""Images that are encoded to measure how long the others will take."""


@dataclass
class Grid:
    """The work that is left.

    Attributes:
        groups: groups to compute.
        lines: lines of runs that cannot be computed, with their reasons.
        images: (dataset, backbone) -> positions of the images that groups need.
        sentences: backbone -> sentences that groups read.
    """

    groups: list[Group] = field(default_factory=list)
    lines: list[dict[str, object]] = field(default_factory=list)
    images: dict[tuple[str, str], set[int]] = field(default_factory=dict)
    sentences: dict[str, dict[str, None]] = field(default_factory=dict)

    def add(self, group: Group, data: Dataset, plan: Plan) -> None:
        """Add a group with all that it needs but the test images.

        Args:
            data: the dataset, of which the plan may have some of the classes.
        """
        self.groups.append(group)
        needed = plan.drawn if plan.listed is None else plan.data.indices("train")
        place = {key: position for position, key in enumerate(data.keys)}
        own = {place[plan.data.keys[i]] for i in needed.tolist()}
        self.images.setdefault((group.dataset, group.backbone), set()).update(own)
        if plan.sentences is not None:
            every = (text for texts in plan.sentences.by_class for text in texts)
            self.sentences.setdefault(group.backbone, {}).update(dict.fromkeys(every))


def check_sentences(work: Work) -> None:
    """Refuse sentences that a dataset cannot use: a mistake of the protocol, not of one run.

    Raises:
        UserError: the source of the protocol cannot be read, lacks a class of a dataset, or is of no use to any method.
    """
    if not any(get_method(row.method).abilities.uses_sentences for row in work.protocol.rows):
        if work.protocol.prompts != "auto":
            raise UserError(
                f'prompts = "{work.protocol.prompts}" cannot be used: no method of the protocol reads sentences; leave it out'
            )
        return
    for dataset in work.protocol.datasets:
        source = work.sources[dataset]
        if source.place is not None:
            try:
                sentences_of(work.protocol, read_source(source.place, source.trained))
            except UserError as error:
                key = f'prompts = "{work.protocol.prompts}"'
                # a benchmark has no such option: its protocol has a key
                why = str(error.args[0]).replace("--prompts FILE", 'prompts = "FILE"')
                raise UserError(f"{key} cannot be used for {source.name}: {why}") from error


def plan_grid(work: Work, backbones: Mapping[str, str], finished: set[str], progress: Progress) -> Grid:
    """Plan every group that is not finished.

    Args:
        backbones: backbone -> why it cannot be used; empty for one that can.
        finished: names of finished runs.
    """
    grid = Grid()
    groups = list(groups_of(work.protocol, work.sources))
    for number, group in enumerate(groups, start=1):
        progress("planning", number, len(groups))
        if finished.issuperset(group.runs):
            continue
        source = work.sources[group.dataset]
        if source.place is None or backbones[group.backbone]:
            grid.lines += group.lines("failed", reason=source.reason or backbones[group.backbone])
            continue
        data = read_source(source.place, source.trained)
        try:
            check_towers(group.method, group.backbone)
            plan = plan_group(work.protocol, group, data)
        except UserError as error:
            grid.lines += group.lines("skipped", reason=str(error))
            continue
        grid.add(group, data, trained_part(work.protocol, plan))
    for dataset, backbone in list(grid.images):
        for test in test_sets(work.protocol, work.sources, dataset):
            grid.images.setdefault((test.dataset, backbone), set()).update(test.positions.tolist())
    return grid


def keep_tests(work: Work, journal: Journal) -> None:
    """Write the description of every test set."""
    for dataset in work.protocol.datasets:
        for test in test_sets(work.protocol, work.sources, dataset) if work.sources[dataset].place else ():
            journal.keep_test(test.file, test.to_dict())


def images_of(work: Work, grid: Grid) -> Iterator[tuple[str, str, Dataset]]:
    """(backbone, dataset, images that groups need of it), backbone by backbone."""
    for backbone in work.protocol.backbones:
        for (dataset, own), positions in grid.images.items():
            source = work.sources[dataset]
            if own == backbone and source.place is not None:
                yield backbone, dataset, read_source(source.place, source.trained).select(np.array(sorted(positions)))


def count_images(work: Work, grid: Grid, progress: Progress) -> tuple[int, float | None]:
    """The number of images to encode, and the estimated seconds; a few of them are encoded to measure it."""
    from biomedcoop.features.images import encode_images, missing_images

    total, seconds = 0, 0.0
    measured: dict[str, float] = {}
    for backbone, dataset, data in images_of(work, grid):
        model = work.load(backbone)
        try:
            missing = missing_images(model, data, progress=counting(progress, f"reading {dataset}"))
            if missing and backbone not in measured:
                begin = time.perf_counter()
                encode_images(model, data.select(missing[:SAMPLE]))
                measured[backbone] = (time.perf_counter() - begin) / len(missing[:SAMPLE])
                missing = missing[SAMPLE:]
        except ImageError:  # the runs that need the image will say so
            continue
        total += len(missing)
        seconds += len(missing) * measured.get(backbone, 0.0)
    return total, seconds if total else None


def encode(work: Work, grid: Grid, progress: Progress) -> None:
    """Encode the images and sentences of the grid that have no stored features, on all cores."""
    from biomedcoop.features.images import encode_images
    from biomedcoop.features.texts import encode_texts

    for backbone, dataset, data in images_of(work, grid):
        model = work.load(backbone)
        try:
            stage = f"encoding {work.sources[dataset].name}" + _of(model, work)
            encode_images(model, data, progress=counting(progress, stage))
        except ImageError as error:  # runs without this image are still possible
            _log.warning(str(error))
    for backbone, texts in grid.sentences.items():
        encode_texts(work.load(backbone), list(texts))


def _of(backbone: Backbone, work: Work) -> str:
    return f" by {backbone.name}" if len(work.protocol.backbones) > 1 else ""


def find_backbones(work: Work) -> tuple[dict[str, str], dict[str, str]]:
    """(backbone -> why it cannot be used, empty for one that can; name -> fingerprint of those that can).

    Raises:
        UserError: none can be used, or two have the same name.
    """
    reasons: dict[str, str] = {}
    fingerprints: dict[str, str] = {}
    for backbone in work.protocol.backbones:
        if (name := Path(backbone).absolute().name) in fingerprints:
            raise UserError(f"two backbones are called {name}; rename a folder")
        try:
            fingerprints[name] = work.load(backbone).fingerprint
            reasons[backbone] = ""
        except UserError as error:
            reasons[backbone] = str(error)
    if not fingerprints:
        raise UserError(f"{next(iter(reasons.values()))}; or take --backbone mini")
    return reasons, fingerprints
