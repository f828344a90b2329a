"""The datasets of a protocol: where they lie, what they are called in results, and whether they can be used."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from biomedcoop.benchmark.protocol import Protocol
from biomedcoop.data.catalogue import find
from biomedcoop.data.dataset import SPLITS, Dataset
from biomedcoop.data.download.check import read_published
from biomedcoop.data.readers.files.coop_split import find_split_file
from biomedcoop.data.readers.load import locate, read_dataset
from biomedcoop.data.readers.named import find_named, user_path
from biomedcoop.data.simulate.load import PREFIX, SimulatedSpec, parse_spec
from biomedcoop.data.simulate.write import write_simulated
from biomedcoop.errors import UserError
from biomedcoop.output import cache_root
from biomedcoop.progress import Progress, counting
from biomedcoop.version import __version__


@dataclass(frozen=True)
class Source:
    """A dataset of a protocol.

    Attributes:
        name: short name in results, of letters, digits, ``_``, ``.`` and ``-``.
        trained: whether methods learn from it; a dataset that is only tested on needs no training images.
        place: folder or file; None for a dataset that cannot be used.
        reason: why it cannot be used; empty if it can.
        facts: classes, images by split, and a digest of its images, for the record of the plan.
    """

    name: str
    trained: bool
    place: Path | None = None
    reason: str = ""
    facts: dict[str, Any] | None = None


def find_sources(protocol: Protocol, root: Path | None, progress: Progress) -> dict[str, Source]:
    """Find every dataset of a protocol and read its list of images; the keys are the datasets as they stand in the protocol.

    Args:
        root: folder of datasets that are found by name; None for :func:`biomedcoop.data.readers.named.data_root`.
        progress: called with the number of simulated images drawn.

    Raises:
        UserError: two datasets would have one name in the results, or ``root`` is no folder.
    """
    if root is not None and not root.is_dir():
        raise UserError(f"data root {root} is not a folder; give the folder that holds the datasets")
    found: dict[str, Source] = {}
    for dataset in protocol.all_datasets:
        name = short_name(dataset)
        if same := next((other for other in found if found[other].name == name), None):
            raise UserError(f"datasets '{same}' and '{dataset}' would both be called {name} in the results; rename one")
        found[dataset] = _source(dataset, name, dataset in protocol.datasets, root, progress)
    return found


def short_name(dataset: str) -> str:
    """The name of a dataset in results: that of the catalogue, of the simulator's task, or of the folder or file.

    Example:
        >>> short_name("/data/My scans.csv"), short_name("simulated:kidney-ct?train=8&seed=2"), short_name("BUSI")
        ('My-scans', 'kidney-ct-seed-2', 'busi')
    """
    if dataset.startswith(PREFIX):
        spec = parse_spec(dataset)  # more images of the same kind have the same name
        stem = dataclasses.replace(spec, **{s: getattr(SimulatedSpec, s) for s in SPLITS}).name.removeprefix(PREFIX)
    elif (entry := find(dataset)) and dataset.casefold() in (entry.name, entry.folder.casefold()):
        stem = entry.name  # another name of it may belong to a part of its images
    else:
        path = user_path(dataset)
        stem = path.absolute().name if path.is_dir() or not path.suffix else path.stem
    return re.sub(r"[^\w.-]+", "-", stem).strip("-")


@lru_cache(maxsize=6)  # a dataset to train on and its external sites
def read_source(place: Path, trained: bool) -> Dataset:
    """The dataset at a place; a process keeps the last few."""
    return read_dataset(place, for_training=trained)


def test_positions(data: Dataset) -> npt.NDArray[np.int64]:
    """Positions of the images to test on: the test split, or all images of data that are only for testing and have none."""
    tested = data.indices("test")
    return tested if len(tested) else np.arange(len(data), dtype=np.int64)


def _source(dataset: str, name: str, trained: bool, root: Path | None, progress: Progress) -> Source:
    try:
        place = _place(dataset, root, counting(progress, f"drawing {name}"))
        _check_split_file(dataset, place)
        data = read_source(place, trained)
        if trained and not data.counts("test").any():
            raise UserError(f"{place}: there are no test images and too few to draw some; give the data a test split")
    except UserError as error:
        return Source(name, trained, reason=str(error))
    return Source(name, trained, place, facts=facts_of(data))


def _place(dataset: str, root: Path | None, drawn: Callable[[int, int], None] | None) -> Path:
    """The folder or file of a dataset; a simulated one is drawn into the cache folder once."""
    if dataset.startswith(PREFIX):
        name = parse_spec(dataset).name
        folder = cache_root() / "simulated" / __version__ / re.sub(r"[^\w.-]+", "-", name.removeprefix(PREFIX))
        draw_simulated(dataset, folder, drawn)
        return folder
    if root is not None and (named := find_named(dataset, root)) is not None:
        return named
    return locate(dataset, root, way="give --data-root")


def _check_split_file(dataset: str, place: Path) -> None:
    """Refuse a published split file that is not the published one."""
    entry = find(dataset) or find(place.name)
    file = find_split_file(place) if place.is_dir() else None
    if entry is not None and file is not None and file.name == entry.split_file:
        read_published(entry, file.read_bytes(), file)


def draw_simulated(dataset: str, folder: Path, drawn: Callable[[int, int], None] | None = None) -> None:
    """Draw a simulated dataset into a folder that does not exist; for any other dataset do nothing."""
    if dataset.startswith(PREFIX) and not folder.is_dir():
        write_simulated(parse_spec(dataset).name, folder, on_image=drawn)


def facts_of(data: Dataset) -> dict[str, Any]:
    """Facts about a dataset for the record of the plan: classes, images by split, and a digest of names and labels."""
    listed = "\n".join(f"{s} {y} {key}" for s, y, key in zip(data.splits, data.labels, data.keys, strict=True))
    return {
        "classes": list(data.class_names),
        "images": {split: int(np.sum(data.splits == split)) for split in SPLITS},
        "digest": hashlib.sha256(listed.encode()).hexdigest(),
    }
