"""Images without labels: read as for prediction, encoded through the store, copies of known images left out, misuse refused."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone
from biomedcoop.errors import Note, UserError
from biomedcoop.tasks.build import build_task
from biomedcoop.tasks.plan import plan_fit
from biomedcoop.tasks.request import FitRequest, TrainRequest

Cli = Callable[..., Any]
Refused = Callable[..., str]


@pytest.fixture(scope="module")
def more(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images of each class in class folders, each unlike those of ``discs``."""
    folder = tmp_path_factory.mktemp("unlabelled") / "more"
    for source in sorted((discs / "test").glob("*/0[0-5].png")):
        place = folder / source.parent.name / source.name
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.open(source).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(place)
    return folder


def fitted(discs: Path, tiny: Backbone, unlabelled: Path) -> torch.Tensor:
    return bc.fit(bc.load_dataset(discs), "ss-text-u", tiny, shots=4, unlabelled=unlabelled).state["class_embeddings"]


def test_names_of_folders_and_columns_of_labels_are_not_read(
    discs: Path, more: Path, tiny: Backbone, tmp_path: Path
) -> None:
    """A folder of class folders, the same images in one folder, and a table with wrong labels teach the same."""
    (tmp_path / "flat").mkdir()
    rows = ["path,label"]
    for number, image in enumerate(sorted(more.glob("*/*.png"))):
        shutil.copy(image, tmp_path / "flat" / f"{number:03d}.png")
        rows.append(f"flat/{number:03d}.png,red stone")
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    expected = fitted(discs, tiny, more)
    for source in (tmp_path / "flat", tmp_path / "table.csv"):
        torch.testing.assert_close(fitted(discs, tiny, source), expected)
    few = tmp_path / "few"
    few.mkdir()
    shutil.copy(tmp_path / "flat" / "000.png", few)
    assert (fitted(discs, tiny, few) - expected).abs().max() > 1e-4


def test_copies_of_known_images_are_left_out_with_a_note(
    discs: Path, more: Path, tiny: Backbone, tmp_path: Path
) -> None:
    data = bc.load_dataset(discs)
    request = FitRequest(data=data, method="ss-text-u", backbone=tiny, shots=4, unlabelled=str(tmp_path / "all"))
    shutil.copytree(more, tmp_path / "all")
    known = [data.images[plan] for plan in plan_fit(request, data).drawn[:2]] + [data.part("test").images[3]]
    for number, image in enumerate(known):
        shutil.copy(image, tmp_path / "all" / f"copy {number}.png")
    with pytest.warns(
        Note, match=r"3 of 21 unlabelled images are copies of training or test images and are left out\."
    ):
        classifier = bc.fit(data, "ss-text-u", tiny, shots=4, unlabelled=tmp_path / "all")
    assert any("3 of 21" in note for note in classifier.facts["notes"])
    task = build_task(plan_fit(request, data), tiny)
    assert task.unlabelled is not None
    assert task.unlabelled.shape == (18, tiny.embed_dim)
    torch.testing.assert_close(classifier.state["class_embeddings"], fitted(discs, tiny, more))
    # images of the training split that no run drew are unlabelled images as good as any
    assert (
        plan_fit(FitRequest(data=data, method="ss-text-u", shots=4, unlabelled=discs / "train"), data).unlabelled
        is not None
    )
    with pytest.raises(UserError, match="all 30 unlabelled images are copies of training or test images"):
        bc.fit(data, "ss-text-u", tiny, shots=4, unlabelled=discs / "test")


def test_misuse_is_one_line(discs: Path, more: Path, refused: Refused, tmp_path: Path) -> None:
    common = ("train", "--data", discs, "--shots", 2, "--out", tmp_path / "run")
    line = refused(*common, "--method", "ss-text-u")
    assert "ss-text-u learns from unlabelled images too; name them with --unlabelled FOLDER" in line
    line = refused(*common, "--method", "kgcoop", "--unlabelled", more)
    assert "kgcoop does not use unlabelled images; leave --unlabelled out" in line
    (tmp_path / "empty").mkdir()
    assert "holds no image" in refused(*common, "--method", "ss-text-u", "--unlabelled", tmp_path / "empty")
    assert "nowhere" in refused(*common, "--method", "ss-text-u", "--unlabelled", tmp_path / "nowhere")


def test_a_run_and_its_comparison(cli: Cli, discs: Path, more: Path, parity: Path, tmp_path: Path) -> None:
    """The methods of a comparison that use no unlabelled images get none; the request has the path, its command the name."""
    run = tmp_path / "run"
    words = ("--data", discs, "--backbone", parity / "model", "--shots", 4, "--n-bootstrap", 40, "--out", run)
    done = cli("train", *words, "--method", "ss-text-u", "--unlabelled", more, "--compare", "zero-shot,ss-text")
    assert done.status == 0, done.err
    assert list(json.loads((run / "metrics.json").read_text())["rows"])[:3] == ["ss-text-u", "zero-shot", "ss-text"]
    request = TrainRequest.read(run / "run.json")
    assert request.unlabelled == str(more)
    assert "--unlabelled more " in request.command()
    assert request.for_method("ss-text").unlabelled is None
    other = TrainRequest(data=str(discs), method="ss-text", compare=("ss-text-u",), unlabelled=str(more))
    assert [other.for_method(name).unlabelled for name in ("ss-text", "ss-text-u")] == [None, str(more)]
    words = TrainRequest(data=str(discs), method="coop", compare=("biomedcoop",), prompts="words.json")
    assert [words.for_method(name).prompts for name in ("coop", "biomedcoop")] == ["auto", "words.json"]


def test_another_method_needs_and_reads_none(discs: Path, tiny: Backbone) -> None:
    data = bc.load_dataset(discs)
    plan = plan_fit(FitRequest(data=data, method="ss-text", shots=4), data)
    assert plan.unlabelled is None
    with warnings.catch_warnings():
        warnings.simplefilter("error", Note)
        assert build_task(plan, tiny).unlabelled is None
    assert bc.fit(data, "ss-text", tiny, shots=4).state["class_embeddings"].isfinite().all()
