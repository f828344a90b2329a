"""``biomedcoop embed``: files of features, and faulty command lines."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest

import biomedcoop as bc

Cli = Callable[..., Any]
Refused = Callable[..., str]

TINY = ("--backbone", Path(__file__).parents[1] / "parity_a" / "model")


def test_npz_and_parquet_hold_the_same(cli: Cli, discs: Path, tmp_path: Path) -> None:
    arrays, table = tmp_path / "features.npz", tmp_path / "features.parquet"
    told = json.loads(cli("embed", discs, *TINY, "--out", arrays, "--json").out)
    assert told["n_images"] == 102
    assert told["splits"] == {"test": 30, "train": 72}
    assert told["classes"] == {"blue cyst": 34, "green tumor": 34, "red stone": 34}
    assert cli("embed", discs, *TINY, "--out", table, "--quiet").err == ""
    with np.load(arrays) as held:
        assert held["features"].dtype == np.float32
        assert held["features"].shape == (102, told["width"])
        about = json.loads(str(held["about"]))
        texts = {name: held[name].tolist() for name in ("key", "class", "split")}
        features = held["features"]
    assert about == {name: told[name] for name in about}
    assert {"backbone", "fingerprint", "precision", "image_size", "version"} <= about.keys()
    read = parquet.read_table(table)
    assert read.column_names == ["key", "class", "split", "features"]
    assert {name: read[name].to_pylist() for name in texts} == texts
    np.testing.assert_array_equal(np.stack(read["features"].to_pylist()), features)
    assert json.loads(read.schema.metadata[b"biomedcoop"]) == about


def test_a_bad_image_is_named_or_skipped(cli: Cli, refused: Refused, discs: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(discs / "train" / "red_stone", tmp_path / "scans"))
    (folder / "03.png").write_bytes(b"no image")
    out, table = tmp_path / "features.npz", tmp_path / "features.parquet"
    line = refused("embed", folder, *TINY, "--out", out)
    assert "03.png" in line
    assert "--skip-bad" in line
    assert not out.exists()
    for file in (out, table):
        result = cli("embed", folder, *TINY, "--out", file, "--skip-bad", "--json")
        assert result.status == 1
        assert json.loads(result.out)["unreadable"] == 1
        assert "23 features" in result.err
    with np.load(out) as held:
        assert np.isnan(held["features"]).any(1).tolist() == [number == 3 for number in range(24)]
        assert [bool(text) for text in held["error"]] == [number == 3 for number in range(24)]
        assert "class" not in held
    read = parquet.read_table(table)
    assert [row is None for row in read["features"].to_pylist()] == [number == 3 for number in range(24)]
    assert [text is None for text in read["error"].to_pylist()] == [number != 3 for number in range(24)]


def test_unit_norm_and_several_sources(cli: Cli, discs: Path, tmp_path: Path) -> None:
    out = tmp_path / "features.npz"
    one = discs / "test" / "red_stone" / "00.png"
    assert cli("embed", discs, one, *TINY, "--out", out, "--unit-norm").status == 0
    with np.load(out) as held:
        np.testing.assert_allclose(np.linalg.norm(held["features"], axis=1), 1, atol=1e-6)
        assert held["key"][0] == f"{discs}/train/blue_cyst/00.png"
        assert held["key"][-1] == str(one)
        assert held["class"][-1] == ""


def test_faulty_command_lines_are_refused_in_one_line(
    refused: Refused, cli: Cli, discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "features.npz"
    assert "choose one of these endings" in refused("embed", discs, "--out", tmp_path / "features.csv")
    assert "no backbone 'nothing'" in refused("embed", discs, "--backbone", "nothing", "--out", out)
    assert "nowhere" in refused("embed", tmp_path / "nowhere", "--out", out)
    (tmp_path / "empty").mkdir()
    assert "no image" in refused("embed", tmp_path / "empty", "--out", out)
    assert "--out" in refused("embed", discs)
    out.write_bytes(b"old")
    assert "exists already" in refused("embed", discs, *TINY, "--out", out)
    assert out.read_bytes() == b"old"
    assert cli("embed", discs, *TINY, "--out", out, "--overwrite").status == 0
    assert bc.embed(discs, TINY[1]).features.shape[0] == len(np.load(out)["key"])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    line = refused("embed", discs, *TINY, "--out", tmp_path / "features.parquet")
    assert "pip install 'biomedcoop[parquet]'" in line
    assert ".npz" in line
