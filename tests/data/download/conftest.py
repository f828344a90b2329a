"""A toy dataset in the catalogue, and a hub that has its archive."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from biomedcoop.data import catalogue
from biomedcoop.data.catalogue import CatalogueEntry, find
from biomedcoop.data.download import datasets
from data.download.toy import archive_content, split_content
from hub_server import Hub, serving


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
