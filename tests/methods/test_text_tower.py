"""Methods on a backbone without a text tower: those that work, and those that are refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import biomedcoop as bc
from backbones.tiny_image_only import write_dinov2
from biomedcoop.errors import UserError
from biomedcoop.methods import all_methods, get_method

Cli = Callable[..., Any]
Refused = Callable[..., str]

NEEDING = [name for name, method in all_methods().items() if method.abilities.needs_text_tower]


@pytest.fixture(scope="session")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny DINOv2."""
    return write_dinov2(tmp_path_factory.mktemp("image-only") / "dino")


def test_the_method_matrix() -> None:
    assert [name for name in all_methods() if name not in NEEDING] == [
        "auto",
        "fine-tune",
        "linear-probe",
        "simpleshot",
    ]


@pytest.mark.parametrize("method", NEEDING)
def test_a_method_that_encodes_texts_is_refused(method: str, discs: Path, dino: Path) -> None:
    data, unlabelled = bc.load_dataset(discs), discs if get_method(method).abilities.uses_unlabelled else None
    for backbone in (dino, bc.load_backbone(dino)):
        with pytest.raises(UserError) as caught:
            bc.fit(data, method, backbone, shots=2, settings={}, unlabelled=unlabelled)
        line = str(caught.value)
        begin = f"{method} encodes texts, but the backbone 'dino' has no text tower; choose the method auto or fine-tune or "
        assert line.startswith(begin)
        assert "\n" not in line


def test_train_evaluate_and_explain_without_a_text_tower(
    cli: Cli, refused: Refused, discs: Path, dino: Path, tmp_path: Path
) -> None:
    common = ("--data", discs, "--backbone", dino)
    run = tmp_path / "run"
    assert "has no text tower; choose the method auto or fine-tune or linear-probe" in refused(
        "train", *common, "--method", "biomedcoop", "--out", run
    )
    told = cli("train", *common, "--method", "linear-probe", "--shots", 4, "--n-bootstrap", 40, "--out", run, page=True)
    assert told.status == 0, told.err
    note = "There is no comparison with zero-shot: the backbone dino has no text tower."
    assert note in told.err
    values = json.loads((run / "metrics.json").read_text())
    assert list(values["rows"]) == ["linear-probe", "majority class"]
    assert not values["text_tower"]
    page = (run / "report.html").read_text(encoding="utf-8")
    assert note in page
    assert "Linear probe uses no text" in page
    tested = cli("evaluate", run, "--data", discs, "--out", tmp_path / "tested", "--backbone", dino)
    assert tested.status == 0, tested.err
    assert note in (tmp_path / "tested" / "report.md").read_text(encoding="utf-8")
    assert cli("predict", run, discs / "test", "--backbone", dino).status == 0
    image = discs / "test" / "red_stone" / "00.png"
    shown = cli("explain", image, "--model", run, "--backbone", dino, "--out", tmp_path / "maps")
    assert shown.status == 0, shown.err
    assert "uses no text" in cli("words", run, "--backbone", dino).out


def test_a_case_has_similar_images_and_no_sentences(discs: Path, dino: Path) -> None:
    data = bc.load_dataset(discs)
    classifier = bc.fit(data, "linear-probe", dino, shots=4)
    image = data.part("test").images[0]
    found = bc.case(classifier, image, data, top=2)
    assert (found.difference, found.predicted.most, len(found.similar)) == (None, (), 2)
    assert [table.title for table in found.tables()] == ["Most similar training images"]
    assert "There are no sentences: the backbone dino has no text tower." in found.notes
    assert found.figure() is not None
    assert json.dumps(found.to_dict())
    with pytest.raises(UserError, match="has no text tower; leave prompts out"):
        bc.case(classifier, image, prompts="auto")


@pytest.mark.parametrize("method", ["grad-cam", "attention-rollout"])
def test_maps_of_an_image(method: str, discs: Path, dino: Path) -> None:
    data = bc.load_dataset(discs)
    classifier = bc.fit(data, "linear-probe", dino, shots=4)
    (found,) = bc.saliency(classifier, data.part("test").images[0], map=method)
    assert np.isfinite(found.values).all()


def test_a_benchmark_skips_what_cannot_run(cli: Cli, discs: Path, dino: Path, tmp_path: Path) -> None:
    protocol = tmp_path / "mine.toml"
    protocol.write_text(
        'format = 1\nkind = "few-shot"\ndatasets = ["scans"]\nmethods = ["linear-probe", "zero-shot", "tip-adapter"]\n'
    )
    common = ("--data-root", discs.parent, "--backbone", dino, "--shots", 1, "--jobs", 1)
    done = cli("benchmark", protocol, "--out", tmp_path / "out", *common)
    lines = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    by_method = {line["method"]: line for line in lines}
    assert by_method["linear-probe"]["status"] == "done", done.err
    for method in ("zero-shot", "tip-adapter"):
        assert by_method[method]["status"] == "skipped"
        assert "has no text tower" in by_method[method]["reason"]


def test_the_list_of_methods_tells_who_needs_a_text_tower(cli: Cli) -> None:
    listed = {one["name"]: one["needs_text_tower"] for one in json.loads(cli("methods", "list", "--json").out)}
    assert not listed["linear-probe"]
    assert listed["tip-adapter"]
    assert "text tower: not needed" in cli("methods", "show", "linear-probe").out
    assert "not needed" in cli("methods", "list").out
