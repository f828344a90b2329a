"""One run folder with a page: simulated discs, a quick method."""

from __future__ import annotations

from pathlib import Path

import pytest

import biomedcoop as bc


@pytest.fixture(scope="session")
def run(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of Tip-Adapter on 8 images per class, with its page; shared: copy it before changing it."""
    folder = tmp_path_factory.mktemp("page") / "run"
    bc.train(discs, folder, method="tip-adapter", shots=8, n_bootstrap=60)
    return folder
