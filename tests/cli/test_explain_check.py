"""``biomedcoop explain --check``: the check of a map on labelled images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import biomedcoop as bc
from backbones.tiny_lite import write_lite

Cli, Refused = Callable[..., Any], Callable[..., str]

DATA = "simulated:breast-ultrasound?train=2&val=0&test=2"


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Options that name a saved classifier, its backbone and a quick map."""
    folder = tmp_path_factory.mktemp("explain")
    backbone = write_lite(folder / "lite")
    bc.fit(bc.load_dataset(DATA), "zero-shot", backbone).save(folder / "model")
    return ["--model", folder / "model", "--backbone", backbone, "--map", "grad-cam"]


def test_the_check_prints_a_line_for_each_measure(cli: Cli, words: list[object]) -> None:
    shown = cli("explain", DATA, *words, "--check")
    assert shown.status == 0, shown.err
    measures = [line.split("  ")[0].strip() for line in shown.out.splitlines()]
    assert {"images", "lesions", "pointing", "IoU", "deletion", "random weights", "fails"} <= set(measures)
    assert "centre blob" in shown.out
    found = json.loads(cli("explain", DATA, *words, "--check", "--json").out)
    assert [row["map"] for row in found["rows"]] == ["grad-cam", "centre blob"]
    assert found["rows"][0]["lesions"] == 4


def test_masks_of_a_folder(cli: Cli, refused: Refused, words: list[object], tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "lesions"
    masks.mkdir()
    for place, pixels in enumerate(np.asarray(bc.load_dataset(DATA).images)[:4]):
        name = f"{place}.png"
        folder = images / ("benign tumor" if place < 2 else "malignant tumor")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
        Image.fromarray(np.uint8(pixels > 200) * 255).save(masks / name)
    command = ["explain", images, *words, "--check", "--masks", masks]
    assert json.loads(cli(*command, "--json").out)["rows"][0]["lesions"] > 0
    for path in list(images.rglob("*.png")):
        Image.new("L", (224, 224), 255).save(path.with_name(f"{path.stem}_mask.png"))
    (images / "benign tumor" / "notes.txt").write_text("of the scanner")
    shown = cli("explain", images, *words, "--check")
    assert "1 file in images is not an image and was ignored" in shown.err
    assert "mask" not in shown.err
    assert "cross-validation" not in shown.err
    assert "too few images" in shown.out
    shutil.copytree(masks, images / "masks")
    shown = cli("explain", images, *words, "--check")
    assert "mask" not in shown.err, "masks in the dataset's folder are used, and not left out"
    shutil.rmtree(images / "masks")
    Image.new("L", (10, 20)).save(masks / "0.png")
    line = refused(*command, begun=True)
    assert (
        "the mask of benign tumor/0.png is 10 × 20 px, the image 224 × 224 px; give masks of the image's own size"
        in line
    )


def test_the_number_of_images_is_said_and_can_be_chosen(cli: Cli, refused: Refused, words: list[object]) -> None:
    data = "simulated:breast-ultrasound?train=2&val=0&test=10"
    shown = cli("explain", data, *words, "--check")
    assert "The check takes 24 of the 30 test images" in shown.err
    assert "--images 30" in shown.err
    few = cli("explain", data, *words, "--check", "--images", 3, "--json")
    assert json.loads(few.out)["rows"][0]["images"] == 3
    assert any("takes 3 of the 30 test images" in note for note in json.loads(few.out)["notes"])
    assert "The check takes" not in cli("explain", DATA, *words, "--check").err
    assert "--images belongs to --check" in refused("explain", data, *words, "--images", 3)
    assert "Invalid value for '--images'" in refused("explain", data, *words, "--check", "--images", 0)


def test_options_that_do_not_go_together(refused: Refused, words: list[object], tmp_path: Path) -> None:
    assert "--masks belongs to --check" in refused("explain", DATA, *words, "--masks", tmp_path)
    assert "--check takes one dataset" in refused("explain", DATA, DATA, *words, "--check")
    assert "no such folder" in refused("explain", DATA, *words, "--check", "--masks", tmp_path / "none", begun=True)
