"""What ``predict`` writes beside the probabilities, what it leaves when it is killed, and how it continues."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest
from PIL import Image

import biomedcoop as bc
from dicom_files import ct, ramp, write

BACKBONE = ("--backbone", Path(__file__).parents[1] / "parity_a" / "model")


@pytest.fixture(scope="module")
def model(discs: Path, parity: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier on the tiny backbone, with prediction sets."""
    folder = tmp_path_factory.mktemp("options") / "model"
    bc.fit(bc.load_dataset(discs), method="simpleshot", backbone=parity / "model", shots=20, alpha=0.2).save(folder)
    return folder


@pytest.fixture(scope="module")
def plain(discs: Path, parity: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("options") / "plain"
    bc.fit(bc.load_dataset(discs), method="simpleshot", backbone=parity / "model", shots=4).save(folder)
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 260 images, two of which are no images."""
    folder, generator = tmp_path_factory.mktemp("many"), np.random.default_rng(1)
    lines = ["path,id"]
    for number in range(260):
        name = f"{number:03d}.png"
        if number in (120, 250):
            (folder / name).write_text("no image")
        else:
            Image.fromarray(generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / name)
        lines.append(f"{name},case {number}")
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    return folder / "list.csv"


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_the_most_probable_classes_in_place_of_all(
    model: Path, discs: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    cli("predict", model, discs / "test", *BACKBONE, "--out", tmp_path / "all.csv")
    cli("predict", model, discs / "test", *BACKBONE, "--out", tmp_path / "top.csv", "--top-k", 2, "--no-sets")
    for whole, top in zip(rows_of(tmp_path / "all.csv"), rows_of(tmp_path / "top.csv"), strict=True):
        shares = sorted(((float(v), k[2:]) for k, v in whole.items() if k.startswith("p_")), reverse=True)
        assert [top["top_1"], top["top_2"]] == [name for _, name in shares[:2]]
        assert [float(top["p_top_1"]), float(top["p_top_2"])] == [share for share, _ in shares[:2]]
        assert top["prediction"] == top["top_1"]
        assert list(top) == ["path", "prediction", "top_1", "p_top_1", "top_2", "p_top_2", "unlike_training"]


def test_a_threshold_marks_what_is_below_it(
    plain: Path, model: Path, discs: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    cli("predict", plain, discs / "test", *BACKBONE, "--out", tmp_path / "a.csv", "--threshold", 0.6)
    rows = rows_of(tmp_path / "a.csv")
    best = [max(float(v) for k, v in row.items() if k.startswith("p_")) for row in rows]
    assert [row["abstain"] == "1" for row in rows] == [share < 0.6 for share in best]
    assert 0 < sum(row["abstain"] == "1" for row in rows) < len(rows)
    assert "set" not in rows[0]
    cli("predict", model, discs / "test", *BACKBONE, "--out", tmp_path / "b.csv", "--threshold", 0.6)
    for row in rows_of(tmp_path / "b.csv"):
        below = max(float(v) for k, v in row.items() if k.startswith("p_")) < 0.6
        assert (row["abstain"] == "1") == (below or row["set_size"] != "1")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--top-k", 4], "--top-k 4, but the classifier has 3 classes; give 1 to 3"),
        (["--top-k", 0], "--top-k 0"),
        (["--threshold", 1.2], "--threshold 1.2 is no probability"),
        (["--threshold", 0], "above 0 and at most 1"),
        (["--sets"], "has no prediction sets; train it with --alpha"),
        (["--batch", 0], "batch=0 must be a whole number from 1 to 1024, e.g. batch=16"),
        (["--batch", 100_000], "batch=100000 must be a whole number from 1 to 1024"),
        (["--log", "/nowhere/log.json"], "/nowhere is not a folder"),
    ],
)
def test_what_cannot_be_is_one_line(
    words: list[Any], said: str, plain: Path, discs: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    assert said in refused("predict", plain, discs / "test", *BACKBONE, "--out", tmp_path / "out.csv", *words)
    assert not list(tmp_path.iterdir())


def test_the_log_says_where_a_table_comes_from(
    plain: Path, many: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    out, log = tmp_path / "out.csv", tmp_path / "log.json"
    assert (
        cli(
            "predict",
            plain,
            many,
            *BACKBONE,
            "--out",
            out,
            "--skip-bad",
            "--log",
            log,
            "--threshold",
            0.9,
            "--batch",
            3,
        ).status
        == 1
    )
    text = log.read_text()
    content = json.loads(text)
    assert content["counts"]["images"] == 260
    assert content["counts"]["unreadable"] == 2
    assert content["counts"]["abstain"] == sum(row["abstain"] == "1" for row in rows_of(out))
    assert content["model"]["sha256"] == json.loads((plain / "classifier.json").read_text())["sha256"]
    assert content["options"]["threshold"] == 0.9
    assert content["options"]["batch"] == 3
    assert content["versions"]["biomedcoop"] == bc.__version__
    assert ".png" not in text
    assert str(many.parent) not in text


def test_no_note_in_the_log_names_a_file(plain: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    """A patient's name in names of folders and files; a mask, a text, one colour, and a DICOM file that names a patient."""
    folder = tmp_path / "Smith_John"
    (folder / "masks").mkdir(parents=True)
    write(folder / "Smith_John.dcm", ct(ramp()))
    for name in ("Smith_John.png", "masks/Smith_John.png", "Smith_John_mask.png"):
        Image.new("L", (40, 40), 90).save(folder / name)
    (folder / "Smith_John.txt").write_text("no image")
    log = tmp_path / "log.json"
    words = (folder, "--out", tmp_path / "out.csv", "--log", log, "--window", "lung", "--frame", 7)
    result = cli("predict", plain, *words, *BACKBONE)
    assert "first " in result.err
    assert "Smith_John.dcm" in result.err
    text = log.read_text()
    content = json.loads(text)
    assert "Smith" not in text
    for said in (
        "files that name a patient: 1; ",
        "of a single colour: 1; ",
        "a mask beside the images in a folder was left out",
        "1 file in a folder is not an image",
        "frame 7 is chosen, but some files have a single frame, which is used",
    ):
        assert any(said in note for note in content["notes"]), said
    assert (content["options"]["window"], content["options"]["frame"]) == ("lung", "7")


def test_a_frame_of_a_single_one_is_noted(plain: Path, discs: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    film, scan = write(tmp_path / "film.dcm", ct(np.stack([ramp()] * 3))), next((discs / "test").rglob("*.png"))
    said = "note: frame 2 is chosen, but some files have a single frame, which is used"
    (tmp_path / "list.csv").write_text(f"path\n{scan}\n{film}\n")
    for given in ([scan], [scan.parent], [tmp_path / "list.csv"]):
        assert cli("predict", plain, *given, *BACKBONE, "--frame", 2).err.count(said) == 1
    assert said not in cli("predict", plain, film, *BACKBONE, "--frame", 2).err
    assert said not in cli("predict", plain, scan, *BACKBONE, "--frame", 0).err


def test_an_interrupted_run_continues_to_the_same_bytes(
    plain: Path, model: Path, many: Path, tmp_path: Path, cli: Callable[..., Any], refused: Callable[..., str]
) -> None:
    """A bad image stops the run; it goes on with --skip-bad, after a kill, and after a change of the list or the model."""
    whole = tmp_path / "whole.csv"
    cli("predict", plain, many, *BACKBONE, "--out", whole, "--skip-bad", "--keep", "id")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole.csv"]

    out, waiting = tmp_path / "out.csv", tmp_path / ".out.csv.partial"
    words = ("predict", plain, many, *BACKBONE, "--out", out, "--keep", "id")
    assert "120.png" in refused(*words)
    kept = waiting.read_bytes().splitlines()
    assert 60 < len(kept) <= 121
    assert not out.exists()

    waiting.write_bytes(b"\n".join(kept) + b'\n{"mark": ["1')  # killed in the middle of a line
    result = cli(*words, "--skip-bad")
    assert f"continues an interrupted run: {len(kept) - 1} of 260 predictions are there" in result.err
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "whole.csv"]

    out.unlink()
    marked = [kept[0], *(line.replace(b'"unlike_training": 0', b'"unlike_training": 1') for line in kept[1:])]
    waiting.write_bytes(b"\n".join(marked) + b"\n")
    image = many.parent / "050.png"
    before = image.read_bytes()
    Image.new("RGB", (40, 40), (200, 10, 10)).save(image)
    log = tmp_path / "log.json"
    said = cli(*words, "--skip-bad", "--log", log).err
    assert "50 of 260 predictions are there" in said
    content = json.loads(log.read_text())
    changed = rows_of(out)
    unlike = sum(row["unlike_training"] == "1" for row in changed)
    assert 50 <= unlike == content["counts"]["unlike_training"]
    for notes in (said, "\n".join(content["notes"])):  # they count the images of the interrupted run too
        assert f"{unlike} of 258 images are unlike the training images" in notes
        assert notes.count("unlike the training images") == 1
    for row in changed[:50]:
        row["unlike_training"] = "0"
    image.write_bytes(before)
    expected = rows_of(whole)
    assert [n for n in range(260) if changed[n] != expected[n]] == [50]

    out.unlink()
    waiting.write_bytes(b"\n".join(kept) + b"\n")
    assert "continues" not in cli("predict", model, many, *BACKBONE, "--out", out, "--keep", "id", "--skip-bad").err
    assert "set" in rows_of(out)[0]


@pytest.mark.slow
@pytest.mark.parametrize("with_signal", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_continues(plain: Path, many: Path, tmp_path: Path, with_signal: int) -> None:
    words = [
        sys.executable,
        "-m",
        "biomedcoop",
        "predict",
        str(plain),
        str(many),
        *map(str, BACKBONE),
        "--skip-bad",
        "--batch",
        "1",
        "--out",
    ]
    subprocess.run([*words, str(tmp_path / "whole.csv")], check=False, capture_output=True)
    out, waiting = tmp_path / "out.csv", tmp_path / ".out.csv.partial"
    process = subprocess.Popen([*words, str(out)], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and (not waiting.exists() or waiting.stat().st_size < 4000):
        time.sleep(0.005)
    os.kill(process.pid, with_signal)
    said = process.communicate()[1]
    assert not out.exists()
    assert waiting.exists()
    assert (
        with_signal == signal.SIGKILL or "predictions are kept in .out.csv.partial; the same command continues" in said
    )
    done = subprocess.run([*words, str(out)], check=False, capture_output=True, text=True)
    assert "continues an interrupted run: " in done.stderr
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not waiting.exists()


def test_sentences_without_new_classes_are_refused(refused: Callable[..., str], plain: Path, discs: Path) -> None:
    line = refused("predict", plain, discs, *BACKBONE, "--prompts", "nofile.json")
    assert line.endswith("--prompts names sentences about new classes; give --classes too, or leave --prompts out")


def test_no_output_replaces_another_one_or_an_input(
    plain: Path, discs: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    scan, table = next((discs / "test").rglob("*.png")), tmp_path / "list.csv"
    table.write_text(f"path,id\n{scan},7\n")
    (tmp_path / "link.csv").symlink_to(table)
    before, both = table.read_text(), tmp_path / "both.json"
    said = refused("predict", plain, table, *BACKBONE, "--out", both, "--log", tmp_path / "." / "both.json")
    assert "both.json is named for two files to write; choose another name" in said
    assert not both.exists()
    parquet.write_table(pyarrow.table({"path": [str(scan)]}), stored := tmp_path / "list.parquet")
    kept = stored.read_bytes()
    for words in (
        ("predict", plain, table, "--out", tmp_path / "link.csv"),
        ("suggest", table, "--model", plain, "--out", table),
        ("embed", stored, "--out", stored),
    ):
        assert "is read by this command too; choose another name" in refused(*words, *BACKBONE, "--overwrite")
    assert (table.read_text(), stored.read_bytes()) == (before, kept)
