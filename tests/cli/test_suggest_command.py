"""``biomedcoop suggest``: what it prints and writes, and faulty command lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone

Cli = Callable[..., Any]
Refused = Callable[..., str]

TINY = ("--backbone", Path(__file__).parents[1] / "parity_a" / "model")


@pytest.fixture(scope="module")
def model(discs: Path, tiny: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suggest") / "model"
    bc.fit(bc.load_dataset(discs), "linear-probe", tiny, shots=4).save(folder)
    return folder


def test_a_number_below_one(refused: Refused, model: Path, tmp_path: Path) -> None:
    assert "Invalid value for '--images'" in refused("suggest", tmp_path, "--model", model, *TINY, "--images", 0)


def test_printed_and_written(cli: Cli, discs: Path, model: Path, tmp_path: Path) -> None:
    """CSV and JSON on the terminal and in a file hold the same images; those of the training are left out, and this is said."""
    asked = ("suggest", discs / "train", "--model", model, *TINY, "--images", 3)
    printed = cli(*asked)
    rows = list(csv.DictReader(io.StringIO(printed.out)))
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert "12 of 72 images trained this classifier and are left out" in printed.err
    found = json.loads(cli(*asked, "--json").out)
    assert [row["path"] for row in found] == [row["path"] for row in rows]
    out = tmp_path / "next.csv"
    told = json.loads(cli(*asked, "--out", out, "--json").out)
    assert told["n_images"] == 3
    assert out.read_text() == printed.out


def test_refused(refused: Refused, discs: Path, model: Path, tmp_path: Path) -> None:
    asked = ("suggest", discs / "train", "--model", model, *TINY)
    assert "Invalid value for '--images'" in refused(*asked, "--images", 0)
    assert "suggestions are written to .csv, .json, .parquet" in refused(*asked, "--out", tmp_path / "next.txt")
    (tmp_path / "empty").mkdir()
    assert "holds no image" in refused("suggest", tmp_path / "empty", "--model", model, *TINY)
    assert "no" in refused("suggest", discs / "train", "--model", tmp_path / "empty", *TINY)
