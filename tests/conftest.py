"""Shared by all tests: the parity fixtures and the tiny model they were made with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone

PARITY = Path(__file__).parent / "parity_a"


@pytest.fixture(scope="session")
def parity() -> Path:
    """Folder of golden numbers from the published implementation (see its README)."""
    return PARITY


@pytest.fixture(scope="session")
def tiny() -> Backbone:
    """The tiny BiomedCLIP-like model of the fixtures, random weights."""
    return load_backbone(PARITY / "model")


@pytest.fixture(scope="session")
def images() -> dict[str, np.ndarray]:
    with np.load(PARITY / "images.npz") as file:
        return dict(file)
