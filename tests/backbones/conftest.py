"""The tiny model's directory, to be spoilt, and a server that has it under the names of BiomedCLIP."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from biomedcoop.backbones import BACKBONES
from biomedcoop.hub import client
from hub_server import Hub, serving

State = dict[str, torch.Tensor]


@pytest.fixture
def folder(parity: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model's directory, to be spoilt."""
    return Path(shutil.copytree(parity / "model", tmp_path / "model"))


@pytest.fixture(scope="session")
def state(parity: Path) -> State:
    return load_file(parity / "model" / "open_clip_model.safetensors")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the package and an empty one of the hub's client."""
    monkeypatch.setenv("BIOMEDCOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(client().constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    return tmp_path / "cache"


@pytest.fixture
def hub(parity: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The tiny model under the file names of BiomedCLIP's repository: weights as ``.bin`` in large file storage."""
    weights = "open_clip_pytorch_model.bin"
    torch.save(load_file(parity / "model" / "open_clip_model.safetensors"), cache.with_name(weights))
    entry = BACKBONES["biomedclip"]
    monkeypatch.setitem(BACKBONES, "biomedclip", replace(entry, model=None))  # type: ignore[arg-type]  # the tiny one is none
    (source,) = entry.sources
    files = {file: (parity / "model" / file).read_bytes() for file in entry.files if file != weights}
    files[weights] = cache.with_name(weights).read_bytes()
    for name in [name for name in os.environ if "proxy" in name.lower() or name.startswith("HF_")]:
        monkeypatch.delenv(name)
    with serving(Hub(source.repo, files, large={weights})) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setattr("time.sleep", lambda seconds: None)  # the hub's client waits between its attempts
        yield server
