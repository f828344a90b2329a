from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest


class Few(NamedTuple):
    """Images of the discs, ordered so that the classes alternate."""

    paths: list[Path]
    labels: list[str]

    @property
    def numbers(self) -> np.ndarray:
        return np.unique(self.labels, return_inverse=True)[1]


def few(folder: Path, count: int) -> Few:
    paths = [sorted(of_class.glob("*.png"))[i] for i in range(count) for of_class in sorted(folder.iterdir())]
    return Few(paths, [path.parent.name.replace("_", " ") for path in paths])


@pytest.fixture(scope="session")
def train(discs: Path) -> Few:
    """Eight training images of each of three classes."""
    return few(discs / "train", 8)


@pytest.fixture(scope="session")
def test(discs: Path) -> Few:
    """Four test images of each of three classes."""
    return few(discs / "test", 4)


@pytest.fixture(scope="session")
def tiny_path(parity: Path) -> Path:
    """Folder of the tiny model."""
    return parity / "model"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images of each pass of an image tower since the start of the test, without those that fill a pass up."""
    from biomedcoop.features import images

    counts: list[int] = []
    whole = images.image_passes

    def counting(*arguments: object) -> object:
        for tags, rows in whole(*arguments):  # type: ignore[arg-type]
            counts.append(len(tags))
            yield tags, rows

    monkeypatch.setattr(images, "image_passes", counting)
    return counts


@pytest.fixture
def empty_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A feature store without features."""
    monkeypatch.setenv("BIOMEDCOOP_CACHE", str(tmp_path / "own cache"))
    return tmp_path / "own cache"
