"""Rows of the feature store on their way to another store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from biomedcoop.features.store import FeatureStore, default_root
from biomedcoop.features.transfer import read_rows, write_rows

SPACE: dict[str, str | int] = {"view": "test", "width": 2}


def test_rows_travel_to_another_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [bytes([number]) * 32 for number in range(3)]
    monkeypatch.setenv("BIOMEDCOOP_CACHE", str(tmp_path / "here"))
    FeatureStore(default_root(), SPACE).put(keys[:2], np.array([[1, 2], [3, 4]], np.float32))
    rows = read_rows(SPACE, keys)
    assert rows.keys.shape == (2, 32)
    monkeypatch.setenv("BIOMEDCOOP_CACHE", str(tmp_path / "there"))
    FeatureStore(default_root(), SPACE).put(keys[1:2], np.array([[7, 8]], np.float32))
    write_rows(rows)
    assert read_rows(SPACE, keys).features.tolist() == [[1, 2], [7, 8]], "what the store held stays"
