"""The images that ``mini`` learns from: a pool of files."""

from __future__ import annotations

import csv
import io
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from biomedcoop.data.images.crops import resize_and_crop
from biomedcoop.errors import UserError
from pretraining.captions import SOURCES, read_library

STORED = 96
"""Side of the stored images in pixels; the pool's own have a short side of at most as much."""
COLUMNS = ("class_name", "dataset", "file", "sha256", "shard")


def read_manifest(pool: Path) -> list[dict[str, str]]:
    """Rows of the pool's manifest.csv without exact copies; datasets without captions are left out, and a line says so.

    Raises:
        UserError: there is none, or it lacks a column, has no row, names a file twice, a shard that is not there or a class
            that no caption is about.
    """
    path = pool / "manifest.csv"
    if not path.is_file():
        raise UserError(f"--pool {pool}: no manifest.csv there; name the folder that holds it and the shards")
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or not set(COLUMNS) <= set(rows[0]):
        raise UserError(f"{path}: needs the columns {', '.join(COLUMNS)} and a row for every image")
    strange = sorted({row["dataset"] for row in rows} - SOURCES.keys())
    if all(row["dataset"] in strange for row in rows):
        raise UserError(f"{path}: no captions for {', '.join(strange)}; captions.py names the datasets that have some")
    if strange:
        print(f"left out, as captions.py has none for them: {', '.join(strange)}")
        rows = [row for row in rows if row["dataset"] not in strange]
    for pair in sorted({(r["dataset"], r["class_name"]) for r in rows}):
        if pair[1] not in read_library(SOURCES[pair[0]])["classes"]:
            raise UserError(f"{path}: no captions for class '{pair[1]}' of '{pair[0]}'; captions.py names those it has")
    for shard in sorted({r["shard"] for r in rows}):
        if not (pool / shard).is_file():
            raise UserError(f"{path}: its shard {shard} is not there; fetch the pool again")
    twice = [name for name, n in Counter(r["file"] for r in rows).items() if n > 1]
    if twice:
        raise UserError(f"{path}: names {twice[0]} more than once")
    first = {row["sha256"] or row["file"]: row for row in reversed(rows)}
    return [row for row in rows if first[row["sha256"] or row["file"]] is row]


def read_pool(pool: Path, rows: list[dict[str, str]]) -> tuple[Tensor, Tensor, list[tuple[str, str]]]:
    """Images of rows of the manifest as uint8 [N, STORED, STORED, 3], labels [N] and the (dataset, class) list.

    Raises:
        UserError: an image cannot be read.
    """
    classes = sorted({(r["dataset"], r["class_name"]) for r in rows})
    labels = torch.tensor([classes.index((r["dataset"], r["class_name"])) for r in rows])
    place = {r["file"]: i for i, r in enumerate(rows)}
    images = np.empty((len(rows), STORED, STORED, 3), np.uint8)
    for shard in sorted({r["shard"] for r in rows}):
        try:
            with tarfile.open(pool / shard) as tar:
                for member in tar:
                    if member.name in place:
                        data = tar.extractfile(member)
                        image = Image.open(io.BytesIO(data.read() if data else b"")).convert("RGB")
                        images[place.pop(member.name)] = resize_and_crop(image, STORED)
        except (tarfile.TarError, OSError) as error:
            raise UserError(f"{pool / shard} is damaged ({error}); fetch the pool again") from error
    if place:
        raise UserError(f"{pool}: {len(place)} images of the manifest are in no shard, {min(place)} first")
    return torch.from_numpy(images), labels, classes
