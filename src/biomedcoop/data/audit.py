"""Audit of a dataset: read every image once and report problems that make training wrong, and warnings."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from biomedcoop.data.dataset import SPLITS, Dataset
from biomedcoop.data.images.facts import ImageFacts, Tally
from biomedcoop.data.images.reading import open_image
from biomedcoop.data.images.stacks import ALL, Reading
from biomedcoop.data.images.windows import AUTO
from biomedcoop.data.readers.load import read_dataset
from biomedcoop.data.sampling.few_shot import short_class
from biomedcoop.data.sampling.folds import divide
from biomedcoop.errors import ImageError, UserError, spelled

SMALL_EDGE = 32
"""Edge in pixels below which an image has too little detail for a 224-pixel encoder."""

LONG_RATIO = 4
"""Aspect ratio above which the centre crop shows less than a quarter of the image."""

_BLOCK = 256  # images decoded at a time, so that memory does not grow with their number


@dataclass(frozen=True)
class Duplicates:
    """Images with the same content: their keys, and the splits and class names they appear under."""

    keys: tuple[str, ...]
    splits: tuple[str, ...]
    classes: tuple[str, ...]


@dataclass
class AuditReport:
    """The findings of `check_dataset`.

    Attributes:
        counts: images per class in each split, ``counts[split][class name]``.
        unreadable: (key, reason) of each image that cannot be used: missing, truncated, oversized, not an image.
        duplicates: sets of images with the same content.
        crossing_groups: group -> its splits, for groups in more than one split.
        short_classes: class -> number of training images, for classes with fewer images than the requested shots.
        modes: images per stored pixel mode ("L", "RGB", "I;16", …).
        smallest, largest: size (width, height) in pixels of the images with the fewest and the most pixels.
        small_images, elongated_images, several_frames, one_colour: numbers of images.
        guessed_depths: bit depth -> number of images, for images whose depth was guessed from their largest value; 0 stands for
            images scaled by their own range.
        problems: findings that make training wrong, a sentence each.
        warnings: other findings, a sentence each.
    """

    name: str
    shots: int | None
    counts: dict[str, dict[str, int]]
    notes: tuple[str, ...] = ()
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    duplicates: list[Duplicates] = field(default_factory=list)
    crossing_groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    short_classes: dict[str, int] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    smallest: tuple[int, int] | None = None
    largest: tuple[int, int] | None = None
    small_images: int = 0
    elongated_images: int = 0
    several_frames: int = 0
    one_colour: int = 0
    guessed_depths: dict[int, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        content = dict(vars(self))
        content["duplicates"] = [vars(copies) for copies in self.duplicates]
        return _json_values(content)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Inspected:
    digest: bytes = b""
    mode: str = ""
    size: tuple[int, int] = (0, 0)
    facts: ImageFacts = field(default_factory=ImageFacts)
    error: str = ""


def check_dataset(
    source: str | Path,
    shots: int | None = None,
    split_file: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    for_training: bool = True,
    window: str = AUTO,
    frame: str | int = ALL,
) -> AuditReport:
    """Read a dataset and decode every image in it once.

    Args:
        source, split_file: as for `load_dataset`.
        shots: training images per class of the planned training; None for the number that training chooses by default.
        progress: called with (images done, images in total).
        for_training: False for test data; ``shots`` is then ignored.
        window, frame: as for `load_dataset`.

    Raises:
        UserError: the dataset cannot be read at all (see `load_dataset`); faults of single images are in the report.
    """
    data = read_dataset(source, split_file, for_training=for_training, reading=Reading(window, str(frame)))
    report = AuditReport(
        name=data.name,
        shots=shots,
        counts={split: dict(zip(data.class_names, data.counts(split).tolist(), strict=True)) for split in SPLITS},
        notes=data.notes,
    )
    same_content: defaultdict[bytes, list[int]] = defaultdict(list)
    modes: Counter[str] = Counter()
    tally = Tally()
    readable: list[int] = []
    for index, inspected in enumerate(_inspect_images(data, progress)):
        if inspected.error:
            report.unreadable.append((data.keys[index], inspected.error))
            continue
        readable.append(index)
        same_content[inspected.digest].append(index)
        modes[inspected.mode] += 1
        _count_size(report, inspected.size)
        tally.add(data.keys[index], inspected.facts)
    report.several_frames = tally.several_frames[0]
    report.one_colour = tally.one_colour[0] + tally.transparent[0]
    report.guessed_depths = {depth: count for depth, (count, _) in sorted(tally.depths.items())}
    report.modes = dict(modes.most_common())
    report.duplicates = [_duplicates(data, copies) for copies in same_content.values() if len(copies) > 1]
    report.crossing_groups = _crossing_groups(data)
    train = report.counts["train"]
    report.short_classes = {name: count for name, count in train.items() if for_training and count < (shots or 1)}
    _add_findings(report, tally)
    if for_training and readable:
        try:
            divide(data.select(readable), seeds=[1])
        except UserError as error:  # the same refusal as that of training
            report.problems.append(str(error))
    return report


def _inspect_images(data: Dataset, progress: Callable[[int, int], None] | None) -> Iterator[_Inspected]:
    """The findings about each image, in order; a few threads decode, because Pillow releases the interpreter lock."""

    def inspect(index: int) -> _Inspected:
        try:
            opened = open_image(data.images[index], data.keys[index])
        except ImageError as error:
            return _Inspected(error=error.reason)
        return _Inspected(opened.digest, opened.mode, opened.image.size, opened.facts)

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for start in range(0, len(data), _BLOCK):
            block = range(start, min(start + _BLOCK, len(data)))
            for index, inspected in zip(block, pool.map(inspect, block), strict=True):
                yield inspected
                if progress is not None:
                    progress(index + 1, len(data))


def _count_size(report: AuditReport, size: tuple[int, int]) -> None:
    report.smallest = min(report.smallest or size, size, key=_area)
    report.largest = max(report.largest or size, size, key=_area)
    report.small_images += min(size) < SMALL_EDGE
    report.elongated_images += max(size) > LONG_RATIO * min(size)


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _duplicates(data: Dataset, indices: list[int]) -> Duplicates:
    return Duplicates(
        keys=tuple(data.keys[index] for index in indices),
        splits=tuple(split for split in SPLITS if split in set(data.splits[indices].tolist())),
        classes=tuple(data.class_names[label] for label in sorted(set(data.labels[indices].tolist()))),
    )


def _crossing_groups(data: Dataset) -> dict[str, tuple[str, ...]]:
    if data.groups is None:
        return {}
    splits_of: defaultdict[str, set[str]] = defaultdict(set)
    for group, split in zip(data.groups.tolist(), data.splits.tolist(), strict=True):
        if group:
            splits_of[group].add(split)
    return {
        group: tuple(split for split in SPLITS if split in splits)
        for group, splits in splits_of.items()
        if len(splits) > 1
    }


def _add_findings(report: AuditReport, tally: Tally) -> None:
    """Fill ``problems`` and ``warnings``.

    Unreadable images, contradicting classes, leaks into test and a lack of images are problems; everything else is a warning.
    """
    problems, warnings = report.problems, report.warnings
    if report.unreadable:
        key, reason = report.unreadable[0]
        problems.append(f"unreadable images: {len(report.unreadable)}, first {key}: {reason}")
    contradicting = [copies for copies in report.duplicates if len(copies.classes) > 1]
    if contradicting:
        first = contradicting[0]
        problems.append(
            f"same image under different classes: {len(contradicting)}, first {_pair(first)} "
            f"({', '.join(first.classes)}); keep the right one"
        )
    for reaches_test, target in ((True, problems), (False, warnings)):
        across = [copies for copies in report.duplicates if _crosses(copies.splits, reaches_test)]
        if across:
            target.append(
                f"same image in more than one split: {len(across)}, first {_pair(across[0])} "
                f"({', '.join(across[0].splits)}); remove it from one side"
            )
        groups = [name for name, splits in report.crossing_groups.items() if _crosses(splits, reaches_test)]
        if groups:
            splits = ", ".join(report.crossing_groups[groups[0]])
            target.append(
                f"groups in more than one split: {len(groups)}, first {groups[0]!r} ({splits}); keep each on one side"
            )
    for name, count in report.short_classes.items():
        problems.append(spelled(short_class(name, count, report.shots or 1)))
    within = [copies for copies in report.duplicates if len(copies.splits) == 1 and len(copies.classes) == 1]
    if within:
        warnings.append(f"same image repeated within a split: {len(within)}, first {_pair(within[0])}")
    if report.small_images:
        warnings.append(f"images with an edge below {SMALL_EDGE} pixels: {report.small_images}")
    if report.elongated_images:
        warnings.append(
            f"images more than {LONG_RATIO} times as long as wide: {report.elongated_images}; "
            "most backbones use only their centre square"
        )
    warnings += tally.notes()
    for split in ("val", "test"):
        empty = [name for name, count in report.counts[split].items() if not count]
        if empty and any(report.counts[split].values()):
            warnings.append(f"classes without an image in {split}: {', '.join(empty)}")


def _crosses(splits: tuple[str, ...], reaches_test: bool) -> bool:
    return len(splits) > 1 and ("test" in splits) == reaches_test


def _pair(copies: Duplicates) -> str:
    return f"{copies.keys[0]} and {copies.keys[1]}"


def _json_values(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _json_values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_values(item) for item in value]
    return value
