"""One classifier, trained on the drawn discs with the tiny backbone."""

from __future__ import annotations

from pathlib import Path

import pytest

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone


@pytest.fixture(scope="session")
def clf(discs: Path, tiny: Backbone) -> bc.Classifier:
    return bc.fit(bc.load_dataset(discs), "biomedcoop", tiny, shots=4, settings={"epochs": 2})


@pytest.fixture(scope="session")
def test_images(discs: Path) -> list[Path]:
    """The 30 test images, sorted as a search of their folder finds them."""
    return sorted((discs / "test").rglob("*.png"))
