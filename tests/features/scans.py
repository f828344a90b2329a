"""Random images as files or arrays, and what the tests of encoding compare with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from biomedcoop.backbones.base import Backbone
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.crops import resize_and_crop
from biomedcoop.data.images.reading import read_image
from biomedcoop.features.upkeep import SpaceSummary, summary

Pixels = npt.NDArray[np.uint8]

TEXTS = [
    "a cyst.",
    "a scan of the kidney.",
    "a photo of a normal kidney.",
    "a bright, round and well defined mass lies beside the left kidney, and its wall is thin and smooth all around.",
    "mass " * 100,
    "",
]


def pictures(n: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (n, 40, 36, 3), dtype=np.uint8)


def dataset(images: list[Path] | Pixels) -> Dataset:
    keys = (
        tuple(path.name for path in images)
        if isinstance(images, list)
        else tuple(f"x[{i}]" for i in range(len(images)))
    )
    labels = np.zeros(len(images), dtype=np.int64)
    return Dataset("scans", ("only",), images, keys, labels, np.full(len(images), "train"))


def write(folder: Path, images: Pixels) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{number:04}.png" for number in range(len(images))]
    for path, pixels in zip(paths, images, strict=True):
        Image.fromarray(pixels).save(path)
    return paths


def feature_spaces(store: Path) -> list[SpaceSummary]:
    """What the store holds of features, without the facts beside them."""
    return [space for space in summary(store) if "fingerprint" in space.description]


def direct(backbone: Backbone, images: list[Path] | Pixels) -> npt.NDArray[np.float32]:
    crops = np.stack([resize_and_crop(read_image(image), backbone.image_size) for image in images])
    with torch.no_grad():
        return backbone.encode_image(backbone.normalize(crops)).numpy()
