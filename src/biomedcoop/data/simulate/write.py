"""A simulated data set as a folder of PNG files with masks, a split file and a README."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from biomedcoop.data.dataset import SPLITS, Dataset
from biomedcoop.data.simulate.load import NOTE, PREFIX, SimulatedSpec, draw_images, parse_spec
from biomedcoop.errors import UserError

MARKER = "simulated.json"
"""File that marks a folder as drawn by us: what was drawn, and that nobody must take it for real images."""


def write_simulated(
    name: str, folder: Path, overwrite: bool = False, on_image: Callable[[int, int], None] | None = None
) -> Dataset:
    """Draw a simulated data set into ``folder``.

    It holds ``train|val|test/<class>/0003.png``, the lesions' masks (0 or 255) under ``masks/`` with the same relative
    paths, ``split.json`` in CoOp form, ``simulated.json`` and a README. It appears under its name only when complete.

    Args:
        name: see `load_simulated`.
        folder: where to.
        overwrite: replace an earlier simulated data set; no other folder with content is ever replaced.
        on_image: called with (images written, images in all) after each image.

    Returns:
        The data set with the files' paths as images.

    Raises:
        UserError: a bad name, a folder in the way, or a disk that cannot be written.
    """
    spec = parse_spec(name)
    target = folder.expanduser().resolve()
    _check_target(target, overwrite)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    replaced = target.with_name(f".{target.name}.{os.getpid()}.replaced")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        entries = _write_content(spec, partial, on_image)
        if target.exists():
            target.rename(replaced)
        try:
            partial.rename(target)
        except OSError:
            if replaced.exists():
                replaced.rename(target)
            raise
    except OSError as error:
        raise UserError(
            f"{target}: cannot write the simulated images ({error.strerror}); choose a folder with space that you may write to"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if target.exists():
            shutil.rmtree(replaced, ignore_errors=True)
    keys = tuple(key for split in SPLITS for key, _, _ in entries[split])
    return Dataset(
        name=PREFIX + spec.task.name,
        class_names=spec.task.class_names,
        images=[target / key for key in keys],
        keys=keys,
        labels=np.array([label for split in SPLITS for _, label, _ in entries[split]], dtype=np.int64),
        splits=np.array([split for split in SPLITS for _ in entries[split]], dtype=np.str_),
        root=target,
        simulated=True,
        notes=(NOTE,),
    )


def _check_target(target: Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise UserError(f"{target} is a file; name a folder for the simulated images")
    if not any(target.iterdir()):
        return
    if not overwrite:
        raise UserError(f"{target} exists and is not empty; choose another folder or overwrite it (--overwrite)")
    if not (target / MARKER).is_file():
        raise UserError(f"{target} holds other things than simulated images (no {MARKER}), so it is not replaced")


def _write_content(
    spec: SimulatedSpec, folder: Path, on_image: Callable[[int, int], None] | None
) -> dict[str, list[tuple[str, int, str]]]:
    entries: dict[str, list[tuple[str, int, str]]] = {split: [] for split in SPLITS}
    label_of_file = PngInfo()
    label_of_file.add_text("simulated", f"{NOTE} Drawn by biomedcoop as {spec.name}.")
    for position, image in enumerate(draw_images(spec), start=1):
        for path, pixels in (
            (folder / image.key, image.pixels),
            (folder / "masks" / image.key, image.mask.astype(np.uint8) * 255),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path, pnginfo=label_of_file)
        entries[image.split].append((image.key, image.label, spec.task.class_names[image.label]))
        if on_image is not None:
            on_image(position, len(spec))
    _write_json(folder / "split.json", entries)
    about = {"simulated": True, "name": spec.name, "task": spec.task.name, "note": NOTE}
    _write_json(folder / MARKER, about)
    (folder / "README.md").write_text(_readme(spec), encoding="utf-8")
    return entries


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _readme(spec: SimulatedSpec) -> str:
    classes = "\n".join(f"{label}. {class_name}" for label, class_name in enumerate(spec.task.class_names))
    return f"""# Simulated {spec.task.organ} {spec.task.modality}

**{NOTE}** What a model learns or scores here says nothing about real scans.

Drawn by biomedcoop as `{spec.name}`; the same name and version draw the same pixels.

Per class: {spec.train} training, {spec.val} validation and {spec.test} test images, 224 × 224 px, 8-bit grey.

Labels:

{classes}

- `train/`, `val/`, `test/`: one folder per class
- `masks/`: the lesion of each image (255), under the same relative path; empty where there is none
- `split.json`: `[path, label, class name]` per image and split
- `simulated.json`: what was drawn
"""
