"""A simulated data set as a folder of PNG files with masks, a split file and a README."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from biomedcoop.data.dataset import SPLITS, Dataset
from biomedcoop.data.simulate.load import NOTE, SimulatedSpec, draw_images, parse_spec
from biomedcoop.errors import UserError
from biomedcoop.output import new_folder

MARKER = "simulated.json"
"""File that marks a folder of simulated images and says what was drawn, so that nobody takes them for real ones."""

CONTENTS = (MARKER, "split.json", "README.md", "masks", *SPLITS)


def write_simulated(
    name: str, folder: Path, overwrite: bool = False, on_image: Callable[[int, int], None] | None = None
) -> Dataset:
    """Draw a simulated data set into ``folder``.

    It holds ``train|val|test/<class>/0003.png``, the lesions' masks (0 or 255) under ``masks/`` with the same relative
    paths, ``split.json`` in CoOp form, ``simulated.json`` and a README. It appears under its name only when complete.

    Args:
        name: see `load_simulated`.
        folder: folder to write.
        overwrite: replace an earlier simulated data set; no other folder with content is ever replaced.
        on_image: called with (images written, images in total) after each image.

    Returns:
        The data set with the files' paths as images.

    Raises:
        UserError: the name is not valid, the folder exists already, or it cannot be written.
    """
    spec = parse_spec(name)
    target = folder.expanduser().resolve()
    with new_folder(target, overwrite=overwrite, mark=MARKER, contents=CONTENTS) as partial:
        entries = _write_content(spec, partial, on_image)
    keys = tuple(key for split in SPLITS for key, _, _ in entries[split])
    return Dataset(
        name=spec.name,
        class_names=spec.task.class_names,
        images=[target / key for key in keys],
        keys=keys,
        labels=np.array([label for split in SPLITS for _, label, _ in entries[split]], dtype=np.int64),
        splits=np.array([split for split in SPLITS for _ in entries[split]], dtype=np.str_),
        root=target,
        simulated=True,
        notes=(NOTE,),
    )


def marked(data: Dataset, folder: Path) -> Dataset:
    """``data`` read from ``folder``, marked as simulated if :func:`write_simulated` wrote the folder."""
    marker = folder / MARKER
    if not marker.is_file():
        return data
    try:
        name = str(json.loads(marker.read_text(encoding="utf-8"))["name"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{marker}: damaged; draw the images again, or delete the file if they are real") from error
    return replace(data, name=name, simulated=True, notes=(*data.notes, NOTE))


def _write_content(
    spec: SimulatedSpec, folder: Path, on_image: Callable[[int, int], None] | None
) -> dict[str, list[tuple[str, int, str]]]:
    entries: dict[str, list[tuple[str, int, str]]] = {split: [] for split in SPLITS}
    png_text = PngInfo()
    png_text.add_text("simulated", f"{NOTE} Drawn by biomedcoop as {spec.name}.")
    for position, image in enumerate(draw_images(spec), start=1):
        for path, pixels in (
            (folder / image.key, image.pixels),
            (folder / "masks" / image.key, image.mask.astype(np.uint8) * 255),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path, pnginfo=png_text)
        entries[image.split].append((image.key, image.label, spec.task.class_names[image.label]))
        if on_image is not None:
            on_image(position, len(spec))
    _write_json(folder / "split.json", entries)
    about = {"simulated": True, "name": spec.name, "note": NOTE}
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
