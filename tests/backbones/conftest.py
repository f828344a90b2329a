"""The tiny model's directory, to be spoilt."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

State = dict[str, torch.Tensor]


@pytest.fixture
def folder(parity: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model's directory, to be spoilt."""
    return Path(shutil.copytree(parity / "model", tmp_path / "model"))


@pytest.fixture(scope="session")
def state(parity: Path) -> State:
    return load_file(parity / "model" / "open_clip_model.safetensors")
