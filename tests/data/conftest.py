"""Small real image files, laid out the ways that users lay them out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Draw = Callable[[Path], Path]


@pytest.fixture
def draw() -> Draw:
    """Writes a small picture, each different from the last, and makes its folders."""
    generator = np.random.default_rng(0)

    def write(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
        return path

    return write


def two_classes(folder: Path, number: int, draw: Draw) -> Path:
    """A folder with as many images of each of two classes and no split."""
    for name in ("normal_scan", "cyst"):
        for i in range(number):
            draw(folder / name / f"{i:0{len(str(number - 1))}}.png")
    return folder


@pytest.fixture
def many_images(tmp_path: Path, draw: Draw) -> Path:
    """`large/` with forty images of each of two classes and no split: enough to draw a test split."""
    return two_classes(tmp_path / "large", 40, draw)


@pytest.fixture
def class_folders(tmp_path: Path, draw: Draw) -> Path:
    """`scans/` with ten images of each of two classes and no split."""
    return two_classes(tmp_path / "scans", 10, draw)
