"""``biomedcoop words``: tables, JSON, the figure, and faulty command lines."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone

Cli = Callable[..., Any]
Refused = Callable[..., str]


@pytest.fixture
def model(discs: Path, tiny: Backbone, tmp_path: Path) -> tuple[object, ...]:
    """Arguments that name a BiomedCoOp model, and its backbone."""
    data = bc.load_dataset(discs)
    classifier = bc.fit(data, "biomedcoop", tiny, 2, settings={"epochs": 2, "lr": 0.5})
    classifier.save(tmp_path / "model")
    return tmp_path / "model", "--backbone", Path(__file__).parents[1] / "parity_a" / "model"


def test_tables_json_and_figure_agree(cli: Cli, model: tuple[object, ...], tmp_path: Path) -> None:
    shown = cli("words", *model, "--top", 2, "--out", tmp_path / "heat.png")
    assert shown.status == 0
    with Image.open(tmp_path / "heat.png") as image:
        assert image.format == "PNG"
    found = json.loads(cli("words", *model, "--top", 2, "--json").out)
    for vector in found["vectors"]:
        assert len(vector["nearest"]) == 2
        near = vector["nearest"][0]
        assert f"{near['text'].removeprefix('##')} {near['distance']:.2f}" in shown.out.replace("*", "")
    for shift in found["shifts"]:
        assert f"{shift['angle']:.1f}°" in shown.out
    assert "CoOp's authors found such words hard to interpret" in shown.out
    cli("words", *model, "--out", tmp_path / "heat.pdf")
    assert (tmp_path / "heat.pdf").read_bytes().startswith(b"%PDF")


def test_one_note_on_the_letters_that_the_font_lacks(cli: Cli, discs: Path, tiny: Backbone, tmp_path: Path) -> None:
    data = dataclasses.replace(bc.load_dataset(discs), class_names=("良性", "恶性", "stone"))
    bc.fit(data, "zero-shot", tiny).save(tmp_path / "model")
    backbone = Path(__file__).parents[1] / "parity_a" / "model"
    command = ["words", tmp_path / "model", "--backbone", backbone, "--out", tmp_path / "heat.png"]
    shown = cli(*command)
    assert shown.status == 0, shown.err
    assert shown.err.count("boxes in their place: 良, 性, 恶\n") == 1
    assert "Glyph" not in shown.err
    assert cli(*command, "--overwrite", "--quiet").err == ""


def test_faulty_command_lines_are_refused_in_one_line(
    refused: Refused, cli: Cli, model: tuple[object, ...], discs: Path, tmp_path: Path
) -> None:
    assert "Invalid value for '--top'" in refused("words", *model, "--top", 0)
    assert "choose one of these endings" in refused("words", *model, "--out", tmp_path / "heat.jpg")
    (tmp_path / "old.png").write_bytes(b"old")
    assert "old.png" in refused("words", *model, "--out", tmp_path / "old.png")
    assert (tmp_path / "old.png").read_bytes() == b"old"
    assert cli("words", *model, "--out", tmp_path / "old.png", "--overwrite", "--quiet").status == 0
    assert "not a saved classifier" in refused("words", discs)
    assert "nowhere.csv" in refused("words", *model, "--prompts", "nowhere.csv")
