"""The images that ``mini`` learns from: a pool of files, and scans that the package draws itself."""

from __future__ import annotations

import csv
import io
import tarfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from biomedcoop.data.simulate import TASKS, draw_scan
from biomedcoop.errors import UserError
from pretraining.captions import SOURCES, read_library

STORED = 112
SIMULATED_SEED = 20_000_001  # no one draws a demo with it


def read_manifest(pool: Path) -> list[dict[str, str]]:
    """Rows of the pool's manifest.csv; datasets without captions are left out, and a line says so.

    Raises:
        UserError: there is none, or it lacks a column, has no row, names a file twice, a shard that is not there or a class
            that no caption is about.
    """
    path = pool / "manifest.csv"
    if not path.is_file():
        raise UserError(f"--pool {pool}: no manifest.csv there; name the folder that holds it and the shards")
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = {"file", "shard", "dataset", "class_name"}
    if not rows or not columns <= set(rows[0]):
        raise UserError(f"{path}: needs the columns {', '.join(sorted(columns))} and a row for every image")
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
    return rows


def read_pool(pool: Path, simulated: int) -> tuple[Tensor, Tensor, list[tuple[str, str]]]:
    """All images as uint8 [N, STORED, STORED, 3] (short edge resized, centre crop), labels [N] and the (dataset, class) list.

    Raises:
        UserError: the manifest is wrong (see :func:`read_manifest`), or an image of it cannot be read.
    """
    rows = read_manifest(pool)
    classes = sorted({(r["dataset"], r["class_name"]) for r in rows})
    if simulated:
        classes += [(f"simulated {task}", name) for task in TASKS for name in TASKS[task].class_names]
    label = {r["file"]: classes.index((r["dataset"], r["class_name"])) for r in rows}
    images, labels = [], []
    for pair, pixels in simulated_images(simulated):
        images.append(np.asarray(Image.fromarray(pixels).convert("RGB").resize((STORED, STORED), 3)))
        labels.append(classes.index(pair))
    for shard in sorted({r["shard"] for r in rows}):
        try:
            with tarfile.open(pool / shard) as tar:
                for member in tar:
                    if member.name in label:
                        data = tar.extractfile(member)
                        images.append(stored(Image.open(io.BytesIO(data.read() if data else b""))))
                        labels.append(label.pop(member.name))
        except (tarfile.TarError, OSError) as error:
            raise UserError(f"{pool / shard} is damaged ({error}); fetch the pool again") from error
    if label:
        raise UserError(f"{pool}: {len(label)} images of the manifest are in no shard, {min(label)} first")
    return torch.from_numpy(np.stack(images)), torch.tensor(labels), classes


def stored(image: Image.Image) -> np.ndarray:
    """The middle of an image at short side STORED, uint8 [STORED, STORED, 3]."""
    image = image.convert("RGB")
    scale = STORED / min(image.size)
    image = image.resize((max(STORED, round(image.width * scale)), max(STORED, round(image.height * scale))), 3)
    left, top = (image.width - STORED) // 2, (image.height - STORED) // 2
    return np.asarray(image.crop((left, top, left + STORED, top + STORED)))


def simulated_images(per_class: int) -> Iterator[tuple[tuple[str, str], np.ndarray]]:
    """Scans that the package draws itself, of a seed of their own and every difficulty, so that the demo has a backbone that
    knows the two simulated tasks (and none of the images the demo draws)."""
    scans = [(task, c, i) for task in TASKS for c in range(len(TASKS[task].class_names)) for i in range(per_class)]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for (task, c, _), pixels in zip(scans, pool.map(simulated_image, scans, chunksize=20), strict=True):
            yield (f"simulated {task}", TASKS[task].class_names[c]), pixels


def simulated_image(scan: tuple[str, int, int]) -> np.ndarray:
    task, label, index = scan
    return draw_scan(task, label, SIMULATED_SEED, index, difficulty=index % 11 / 10)[0]
