"""Shared by all tests: the parity fixtures and the tiny model they were made with, a small drawn dataset, the command line."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from backbones.tiny_clip import write_resnet, write_vit
from backbones.tiny_lite import write_lite
from backbones.tiny_siglip import write_siglip
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.cli import main

PARITY = Path(__file__).parent / "parity_a"
LATER = Path(__file__).parent / "parity_later_a"


@pytest.fixture(scope="session")
def parity() -> Path:
    """Folder of golden numbers from the published implementation (see its README)."""
    return PARITY


@pytest.fixture(scope="session")
def later() -> Path:
    """Folder of golden numbers from the published implementations of later methods, on the same tiny model (see its README)."""
    return LATER


@pytest.fixture(scope="session")
def tiny() -> Backbone:
    """The tiny BiomedCLIP-like model of the fixtures, random weights."""
    return load_backbone(PARITY / "model")


@pytest.fixture(scope="session")
def tiny_clip_vit(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A tiny CLIP with a ViT, random weights."""
    return load_backbone(write_vit(tmp_path_factory.mktemp("clip") / "clip-vit"))


@pytest.fixture(scope="session")
def tiny_clip_resnet(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A tiny CLIP with a ResNet, random weights."""
    return load_backbone(write_resnet(tmp_path_factory.mktemp("clip") / "clip-resnet"))


@pytest.fixture(scope="session")
def tiny_siglip(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A tiny SigLIP, random weights."""
    return load_backbone(write_siglip(tmp_path_factory.mktemp("siglip") / "siglip"))


@pytest.fixture(scope="session")
def tiny_lite(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A tiny EfficientNet-Lite with a mean-pooled BERT, random weights."""
    return load_backbone(write_lite(tmp_path_factory.mktemp("lite") / "lite"))


@pytest.fixture(scope="session")
def images() -> dict[str, np.ndarray]:
    with np.load(PARITY / "images.npz") as file:
        return dict(file)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIOMEDCOOP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``scans/train|test/<class>/00.png``: a disc of the class's colour on noise; 3 classes, 24 training and 10 test images each.

    Shared: copy it before changing it.
    """
    folder = tmp_path_factory.mktemp("discs") / "scans"
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:40, :40]
    for name, colour in (("blue cyst", (40, 60, 220)), ("green tumor", (40, 200, 60)), ("red stone", (220, 50, 40))):
        for split, count in (("train", 24), ("test", 10)):
            (folder / split / name.replace(" ", "_")).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(60, 196, (40, 40, 3), dtype=np.uint8)
                (cx, cy), radius = generator.uniform(14, 26, 2), generator.uniform(8, 14)
                pixels[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = colour
                Image.fromarray(pixels).save(folder / split / name.replace(" ", "_") / f"{number:02d}.png")
    return folder


class Result(NamedTuple):
    status: int
    out: str
    err: str


Cli = Callable[..., Result]
Refused = Callable[..., str]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """Run a command in this process."""
    log, on_end = logging.getLogger("biomedcoop"), signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr("biomedcoop.display.LONG", float("inf"))  # on a busy machine short work may take long

    def call(*words: object, page: bool = False) -> Result:
        """``page``: also write ``report.html``, which takes a second."""
        if not page and words[:1] in (("train",), ("evaluate",)):
            words = (*words, "--no-html")
        monkeypatch.setattr(sys, "argv", ["biomedcoop", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        return Result(int(left.value.code or 0), *capsys.readouterr())

    yield call
    log.handlers.clear()
    log.propagate = True
    signal.signal(signal.SIGTERM, on_end)


@pytest.fixture
def refused(cli: Cli) -> Refused:
    """Run a command that must end with status 2 and one line, which notes may precede if the work began; returns the line."""

    def call(*words: object, begun: bool = False) -> str:
        result = cli(*words)
        assert result.status == 2, result
        assert result.out == ""
        *notes, line = result.err.splitlines()
        assert all(note.startswith("note: ") for note in notes), notes
        assert begun or not notes
        assert line.startswith("error: ")
        assert len(line) < 500
        return line

    return call
