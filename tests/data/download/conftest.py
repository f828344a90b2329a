"""A toy dataset of the catalogue, and the archive and split file that the hub would give for it."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biomedcoop.data import catalogue
from biomedcoop.data.catalogue import CatalogueEntry, find
from biomedcoop.data.download import datasets
from hub_server import Hub, serving

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


@pytest.fixture
def entry(monkeypatch: pytest.MonkeyPatch) -> CatalogueEntry:
    """The catalogue's busi with the toy's split file, as the only dataset."""
    busi = find("busi")
    assert busi is not None
    toy = replace(
        busi, split_sha256=hashlib.sha256(split_content()).hexdigest(), counts={"train": 6, "val": 3, "test": 3}
    )
    monkeypatch.setattr(catalogue, "_entries", lambda: (toy,))
    return toy


@pytest.fixture
def hub(entry: CatalogueEntry, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub dataset with the archive alone; the split file is at the address of the paper's repository."""
    files = {"BUSI.zip": archive_content(), "published.json": split_content()}
    with serving(Hub(f"datasets/{entry.hub_dataset}", files, large={"BUSI.zip"})) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(datasets, "SPLIT_URL", f"{server.address}/store/published.json")
        monkeypatch.setattr("time.sleep", lambda seconds: None)  # the hub's client waits between its attempts
        yield server


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder."""
    monkeypatch.setenv("BIOMEDCOOP_DATA", str(tmp_path / "data"))
    return tmp_path / "data"
