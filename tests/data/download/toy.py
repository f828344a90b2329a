"""A toy dataset in the published form: split file, images and archive."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
from PIL import Image

KEYS = [
    f"{name}/{number:02} (a).png" for name in ("benign_tumor", "malignant_tumor", "normal_scan") for number in range(4)
]


def split_content() -> bytes:
    """The split file: two training images, one validation and one test image of each class."""
    lists: dict[str, list[list[object]]] = {"train": [], "val": [], "test": []}
    for index, key in enumerate(KEYS):
        split = ("train", "train", "val", "test")[index % 4]
        lists[split].append([key, index // 4, key.partition("/")[0].replace("_", " ")])
    return json.dumps(lists, indent=1).encode()


def image(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def archive_content(above: str = "BUSI/", more: dict[str, bytes] | None = None) -> bytes:
    """The archive, with the class folders below the folder ``above``."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        for number, key in enumerate(KEYS):
            packed.writestr(above + key, image(number))
        for name, text in (more or {}).items():
            packed.writestr(name, text)
    return content.getvalue()
