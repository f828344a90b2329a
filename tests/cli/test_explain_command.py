"""``biomedcoop explain``: files, facts and one line for each mistake."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import biomedcoop as bc
from biomedcoop.classifier.domain import distances
from biomedcoop.explain.saliency import look
from biomedcoop.explain.writing import write_facts
from biomedcoop.features.passes import encode_crops

Cli = Callable[..., Any]
Refused = Callable[..., str]

TOWER = Path(__file__).parent.parent / "parity_a" / "model"


@pytest.fixture(scope="module")
def run(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("run") / "run"
    bc.train(discs, place, method="linear-probe", backbone=TOWER, shots=2, n_bootstrap=40, progress=False)
    return place


def model_of(run: Path) -> list[object]:
    return ["--model", run, "--backbone", TOWER]


def test_a_picture_for_each_image_under_names_of_their_own(cli: Cli, run: Path, discs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    images = [discs / "test" / name / "00.png" for name in ("blue_cyst", "red_stone")]
    told = cli("explain", *images, *model_of(run), "--map", "grad-cam", "--out", out, "--values", "--json")
    assert told.status == 0
    said = json.loads(told.out)
    rows = json.loads((out / "saliency.json").read_text())
    assert said["maps"] == rows
    assert [row["path"] for row in rows] == list(map(str, images))
    assert [row["picture"] for row in rows] == ["maps/00.png", "maps/00-2.png"]
    assert [row["case"]["image"] for row in rows] == ["00.png", "00.png"]
    for row in rows:
        assert len(row["case"]["similar"]) == 3
        assert row["case"]["predicted"]["class_name"] == row["class"]
        with Image.open(out / row["picture"]) as picture:
            assert min(picture.size) > 300
        assert np.load(out / row["values"]).shape == (40, 40)
    assert sorted(path.name for path in (out / "maps").iterdir()) == ["00-2.npy", "00-2.png", "00.npy", "00.png"]


def test_facts_on_the_terminal(cli: Cli, run: Path, discs: Path) -> None:
    told = cli(
        "explain",
        discs / "test" / "red_stone" / "00.png",
        "--model",
        run,
        "--backbone",
        TOWER,
        "--class",
        "red stone",
        "--map",
        "grad-cam",
    )
    assert told.status == 0
    assert "red stone" in told.out
    assert "area above half" in told.out
    assert "Area above half: share of what the model sees" in " ".join(told.out.split())
    assert "Sentences that the image agrees with most and least" in told.out
    assert "Most similar training images" in told.out


def test_what_applies_without_training_images(cli: Cli, run: Path, discs: Path, tmp_path: Path) -> None:
    image = discs / "test" / "red_stone" / "00.png"
    saved = tmp_path / "saved"
    bc.fit(bc.load_dataset(discs), "zero-shot", TOWER).save(saved)
    for model, why in ((run / "model", "has no few_shot.json"), (saved, "learned from none")):
        told = cli("explain", image, "--model", model, "--backbone", TOWER, "--map", "grad-cam")
        assert told.status == 0
        assert told.err.count(why) == 1
        assert "Sentences that the image agrees with most" in told.out
        assert "are for comparison" in told.out
        assert "Most similar" not in told.out


def test_a_few_cases_are_printed(cli: Cli, run: Path, discs: Path) -> None:
    told = cli("explain", discs / "test" / "red_stone", *model_of(run), "--map", "grad-cam")
    assert told.out.count("Most similar training images") == 3
    assert "of 3 images are printed; --json or --out give all" in told.err


def test_a_contact_sheet(cli: Cli, run: Path, discs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    image = discs / "test" / "red_stone" / "00.png"
    told = cli(
        "explain",
        image,
        "--model",
        run,
        "--backbone",
        TOWER,
        "--map",
        "grad-cam",
        "--methods",
        "zero-shot,linear-probe",
        "--out",
        out,
    )
    assert told.status == 0
    assert told.out == ""
    assert f"2 maps of 2 methods on one sheet in {out}\n" in told.err
    assert sorted(path.name for path in out.iterdir()) == ["contact-sheet.png", "saliency.json"]
    assert [row["method"] for row in json.loads((out / "saliency.json").read_text())] == ["zero-shot", "linear-probe"]


@pytest.mark.parametrize("more", [[], ["--methods", "linear-probe"]])
def test_one_note_on_the_letters_that_the_font_lacks(
    cli: Cli, run: Path, discs: Path, tmp_path: Path, more: list[str]
) -> None:
    for name in ("良性", "恶性"):
        shutil.copy(discs / "test" / "red_stone" / "00.png", tmp_path / f"{name}.png")
    command = ["explain", *sorted(tmp_path.glob("*.png")), *model_of(run), *more]
    told = cli(*command, "--out", tmp_path / "out")
    assert (
        told.err.count("The font of the figures lacks 3 letters; figures show boxes in their place: 恶, 性, 良\n") == 1
    )
    assert "Glyph" not in told.err
    assert cli(*command, "--out", tmp_path / "quiet", "--quiet").err == ""
    said = json.loads(cli(*command, "--out", tmp_path / "json", "--quiet", "--json").out)
    assert any("lacks 3 letters" in note for note in said["notes"])


def test_bad_images(cli: Cli, refused: Refused, run: Path, discs: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    good = discs / "test" / "red_stone" / "00.png"
    out = tmp_path / "out"
    line = refused("explain", broken, good, *model_of(run), "--map", "grad-cam", "--out", out)
    assert "broken.png: the content is not a readable image" in line
    assert "--skip-bad" in line
    assert not out.exists()
    words = ["explain", good, broken, *model_of(run), "--map", "grad-cam", "--out", tmp_path / "part"]
    assert refused(*words).endswith(f"to go on after such images; 1 of 2 maps are kept in {tmp_path / 'part'}")
    (kept,) = json.loads((tmp_path / "part" / "saliency.json").read_text())
    assert (tmp_path / "part" / kept["picture"]).is_file()
    before = (tmp_path / "part" / "saliency.json").read_bytes()
    assert "are kept" not in refused(*words[:1], good, good, broken, *words[3:], "--overwrite")
    assert (tmp_path / "part" / "saliency.json").read_bytes() == before
    told = cli("explain", broken, good, *model_of(run), "--map", "grad-cam", "--out", out, "--skip-bad")
    assert told.status == 1
    first, second = json.loads((out / "saliency.json").read_text())
    assert first == {"path": str(broken), "error": first["error"]}
    assert second["picture"] == "maps/00.png"


@pytest.mark.slow
def test_an_interruption_keeps_the_maps_made_so_far(run: Path, discs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["explain", discs / "test", *model_of(run), "--map", "grad-cam", "--values", "--out", out]
    process = subprocess.Popen(
        [sys.executable, "-m", "biomedcoop", *map(str, words)], stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and len(list(tmp_path.glob(".out.new-*/maps/*.npy"))) < 2:  # the first is whole then
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 130
    rows = json.loads((out / "saliency.json").read_text())
    assert f"interrupted; {len(rows)} of 30 maps are kept in {out}" in said
    named = sorted(row[kind] for row in rows for kind in ("picture", "values"))
    assert named == sorted(f"maps/{file.name}" for file in (out / "maps").iterdir())


def test_a_file_that_no_row_names_is_removed(tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    for name in ("1.png", "2.png"):
        (tmp_path / "maps" / name).write_bytes(b"")
    write_facts(tmp_path, [{"path": "1.dcm", "picture": "maps/1.png"}])
    assert [file.name for file in (tmp_path / "maps").iterdir()] == ["1.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--class", "red ston"], "no class 'red ston'; did you mean red stone?"),
        (["--map", "gradcam"], "no map 'gradcam'; did you mean grad-cam"),
        (["--map", "grad-cam", "--layer", "layer4"], "no image layer 'layer4'"),
        (["--map", "grad-cam", "--precision", "int8"], "in int8; load it with precision float32"),
        (["--methods", "zero-shot,coopp"], "did you mean coop"),
        (["--values"], "give a folder with --out"),
        (["--methods", "coop", "--skip-bad"], "leave them out with --methods"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], message: str, refused: Refused, run: Path, discs: Path) -> None:
    assert message in refused("explain", discs / "test" / "red_stone" / "00.png", *model_of(run), *words)


def test_a_missing_run_is_one_line(refused: Refused, run: Path, discs: Path, tmp_path: Path) -> None:
    image = discs / "test" / "red_stone" / "00.png"
    assert str(tmp_path / "none") in refused("explain", image, "--model", tmp_path / "none")
    assert "does not exist" in refused("explain", tmp_path / "none.png", *model_of(run))


def test_a_folder_with_other_files_stays(refused: Refused, run: Path, discs: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    image = discs / "test" / "red_stone" / "00.png"
    assert "exists already" in refused("explain", image, *model_of(run), "--out", tmp_path)
    assert "is not overwritten" in refused("explain", image, *model_of(run), "--out", tmp_path, "--overwrite")


def test_a_note_names_the_images_that_it_holds_for(cli: Cli, discs: Path, tmp_path: Path) -> None:
    classifier = bc.fit(bc.load_dataset(discs), "linear-probe", TOWER, 4)
    images = sorted((discs / "test" / "red_stone").iterdir())[:3]
    features = encode_crops(classifier.backbone, [look(classifier, image).crop for image in images])
    far = distances(features, classifier.domain.means)
    low, high = np.sort(far)[-2:]
    domain = dataclasses.replace(classifier.domain, limit=float(low + high) / 2)
    dataclasses.replace(classifier, domain=domain).save(tmp_path / "model")
    told = cli("explain", *images, *model_of(tmp_path / "model"))
    name = images[far.argmax()].name
    assert f"note: 1 of 3 images is unlike the training images; do not rely on its answer: {name}\n" in told.err
