"""Trainings that the page asks for: progress, report, model, a stop; and nothing left behind."""

from __future__ import annotations

import io
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

import biomedcoop as bc
from biomedcoop.deploy.server.training import FOLDER
from deploy.server.client import Client, Start, line_of

QUICK = "/train?name=mine&method=zero-shot"


@pytest.fixture
def images(discs: Path) -> list[tuple[str, bytes]]:
    files = sorted((discs / "train").glob("*/0[0-7].png"))
    return [(f"{file.parent.name}/{file.name}", file.read_bytes()) for file in files]


def ended(client: Client, key: str) -> dict[str, Any]:
    """The state of a training that has ended."""
    end = time.monotonic() + 60
    while (state := client.get(f"/train/{key}").json)["state"] == "running":
        assert time.monotonic() < end
        time.sleep(0.1)
    return dict(state)


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of trainings lie where no other process of the tests has some."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))


def folders() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"{FOLDER}*"))


@pytest.mark.slow
def test_a_model_is_trained_and_serves(
    start: Start, images: list[tuple[str, bytes]], scans: list[Path], tmp_path: Path
) -> None:
    own = start()
    before = folders()
    begun = own.send("/train?name=mine&method=tip-adapter", *images, ("blue_cyst/notes.txt", b"no image"))
    assert begun.status == 202
    key = begun.json["key"]
    assert begun.json["left_out"] == 1
    assert line_of(own.get(f"/train/{key}/report.html"), 404)
    assert "a training is running" in own.refused(409, QUICK, *images)
    state = ended(own, key)
    assert (state["state"], state["error"]) == ("done", None)
    assert "tip-adapter" in state["verdict"][0]
    assert folders() == before
    report = own.get(f"/train/{key}/report.html")
    assert b"biomedcoop report" in report.content
    assert report.headers["content-security-policy"].startswith("sandbox allow-scripts; default-src 'none'")
    answer = own.send("/predict?model=mine", scans[0]).json
    with zipfile.ZipFile(io.BytesIO(own.get(f"/train/{key}/model.zip").content)) as archive:
        archive.extractall(tmp_path)
    saved = bc.load(tmp_path / "mine")
    assert answer["predictions"][0]["prediction"] == saved.predict([scans[0]])[0]
    assert own.get("/health").json["changed_on_disk"] == []


def test_a_training_is_stopped(start: Start, images: list[tuple[str, bytes]]) -> None:
    own = start()
    key = own.send("/train?name=mine&method=coop", *images).json["key"]
    assert own.ask("DELETE", f"/train/{key}").status == 200
    assert ended(own, key)["state"] == "stopped"
    assert folders() == []
    assert [model["name"] for model in own.get("/models").json["models"]] == ["discs"]


@pytest.mark.slow
def test_folders_below_the_classes_keep_their_place(start: Start, images: list[tuple[str, bytes]]) -> None:
    """As ``train --data`` reads the same folder: folders of patients are no classes, those of splits hold the classes."""
    own, contents = start(), [content for _, content in images]
    patients = [f"{name}/PAT{n % 2}/{n}.png" for name in ("healthy", "lesion") for n in range(8)]
    divided = [f"{split}/{name}" for split in ("Training", "Test Set") for name in patients]
    for name, paths in (("flat", patients), ("divided", divided)):
        begun = own.send(QUICK.replace("mine", name), *zip(paths, contents * 2, strict=False))
        assert ended(own, begun.json["key"])["error"] is None
    models = {model["name"]: model["classes"] for model in own.get("/models").json["models"]}
    assert models["flat"] == models["divided"] == ["healthy", "lesion"]


def test_what_cannot_be_trained(start: Start, images: list[tuple[str, bytes]]) -> None:
    own = start()
    assert "its class is missing" in own.refused(422, QUICK, ("a.png", images[0][1]))
    assert "holds no image" in own.refused(422, QUICK, ("a/a.txt", b"text"))
    for name, fault in {
        "a/../b/a.png": "leaves the folder",
        "/a/a.png": "an absolute path",
        "C:/a/a.png": "an absolute path",
        "a/nul.png": "Windows cannot hold",
        "a/b./a.png": "Windows cannot hold",
        "a/\x7f.png": "control characters",
        f"a/{201 * 'b'}": "too long",
        f"{300 * 'a/b/'}a.png": "too long",
    }.items():
        assert fault in own.refused(422, QUICK, (name, images[0][1]))
    assert "a/b is a file and a folder" in own.refused(422, QUICK, ("a/b", images[0][1]), ("a/b/c.png", images[0][1]))
    assert "holds no image" in own.refused(422, QUICK, ("a/.hidden/a.png", images[0][1]))
    assert "two files are named" in own.refused(422, QUICK, images[0], images[0])
    assert "did you mean" in own.refused(422, "/train?method=biomedcop", *images)
    assert "name" in own.refused(422, "/train?name=../x", *images)
    assert "choose another name" in own.refused(409, "/train?name=discs", *images)
    assert line_of(own.get("/train/unknown"), 404)
    patients = [(name.replace("/", f"/PAT{number % 2}/"), content) for number, (name, content) in enumerate(images[:8])]
    for one_class in (images[:8], patients):
        state = ended(own, own.send(QUICK, *one_class).json["key"])
        assert state["state"] == "failed"
        assert "one class ('blue_cyst', e.g. blue_cyst/" in state["error"]
        assert tempfile.gettempdir() not in state["error"]
