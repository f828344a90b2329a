"""The commands as a user types them: results on stdout, one clear line for a mistake, nothing half-written."""

from __future__ import annotations

import csv
import json
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from biomedcoop.benchmark.compute import Peak
from biomedcoop.cli import main
from biomedcoop.errors import UserError

TINY = str(Path(__file__).parents[1] / "parity_a" / "model")
COMMANDS = (
    ["train"],
    ["evaluate"],
    ["predict"],
    ["explain"],
    ["import-published"],
    ["prompts", "list"],
    ["prompts", "show"],
    ["prompts", "check"],
    ["prompts", "import"],
    ["prompts", "generate"],
    ["methods", "list"],
    ["methods", "show"],
    ["datasets", "list"],
    ["datasets", "info"],
    ["datasets", "download"],
    ["datasets", "prepare"],
    ["datasets", "check"],
    ["datasets", "simulate"],
    ["backbones", "list"],
    ["backbones", "download"],
    ["doctor"],
)


Cli = Callable[..., Any]
Refused = Callable[..., str]


@pytest.fixture(scope="module")
def odd_run(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run made by the command line, as a process of its own, in a folder whose name is no UTF-8; and what it printed."""
    place = tmp_path_factory.mktemp("runs") / os.fsdecode(b"b\xe4")
    done = subprocess.run(
        [sys.executable, "-m", "biomedcoop", *train_words(discs, place), "--no-html"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return place, done.stdout


@pytest.fixture(scope="module")
def run_folder(odd_run: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run under a plain name."""
    return shutil.copytree(odd_run[0], tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def scans(discs: Path, tmp_path: Path) -> Path:
    """A copy of the discs to be spoiled."""
    return shutil.copytree(discs, tmp_path / "scans")


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """Where a command that fails must leave nothing, not even a hidden file."""
    place = tmp_path / "results" / "run"
    place.parent.mkdir()
    yield place
    assert list(place.parent.iterdir()) == []


BIOMEDCOOP = ("--method", "biomedcoop", "--set", "epochs=1")


def train_words(data: object, out: object, *more: object) -> list[str]:
    words = ["train", "--data", data, "--out", out, "--backbone", TINY, "--shots", 4, *BIOMEDCOOP, *more]
    return [str(word) for word in words]


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file can grow beyond ``limit`` bytes, as on a disk that fills up while writing."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# -- the main job


def test_train_evaluate_and_predict(cli: Cli, discs: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    trained = cli(*train_words(discs, out))
    assert trained.status == 0, trained.err
    assert trained.out.startswith("biomedcoop is ")
    assert trained.out.index("\nNext: ") < trained.out.index("scans: 30 test images")
    for words in ("scans: 30 test images", "biomedcoop", "zero-shot", "majority class", "red stone", str(out)):
        assert words in trained.out
    assert "note: Templates (general) are used in place of sentences" in trained.err
    assert "Traceback" not in trained.err
    evaluated = cli("evaluate", out, "--data", discs, "--backbone", TINY)
    accuracy = json.loads((out / "metrics.json").read_text())["rows"]["biomedcoop"]["accuracy"]["value"]
    assert evaluated.status == 0, evaluated.err
    assert f"{100 * accuracy:.1f}" in evaluated.out
    predicted = cli("predict", out, discs / "test", "--backbone", TINY)
    lines = predicted.out.splitlines()
    assert lines[0] == "path,prediction,p_blue cyst,p_green tumor,p_red stone,unlike_training"
    assert len(lines) == 31
    assert predicted.err == ""
    right = sum(line.split(",")[0].split("/")[-2].replace("_", " ") == line.split(",")[1] for line in lines[1:])
    assert right / 30 == pytest.approx(accuracy)


def test_predictions_to_a_file(cli: Cli, refused: Refused, run_folder: Path, discs: Path, tmp_path: Path) -> None:
    words = ["predict", run_folder / "model", discs / "test", "--backbone", TINY, "--out", tmp_path / "p.csv"]
    first = cli(*words)
    assert (first.status, first.out, first.err) == (0, "", f"30 predictions in {tmp_path / 'p.csv'}\n")
    before = (tmp_path / "p.csv").read_bytes()
    assert "p.csv exists already" in refused(*words)
    assert cli(*words, "--overwrite").status == 0
    assert (tmp_path / "p.csv").read_bytes() == before


def test_predictions_beside_the_columns_of_a_table(
    cli: Cli, refused: Refused, run_folder: Path, discs: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(discs / "test" / "red_stone", tmp_path / "img").parent
    (folder / "list.csv").write_text('sep=;\nID;path;"site; ward"\n7;img\\00.png;"A; 1"\n8;img\\01.png;\n')
    words = ["predict", run_folder, folder / "list.csv", "--backbone", TINY]
    lines = cli(*words, "--keep", '"site; ward", id').out.splitlines()
    assert lines[0] == "path,site; ward,ID,prediction,p_blue cyst,p_green tumor,p_red stone,unlike_training"
    assert [line.split(",")[:3] for line in lines[1:]] == [["img\\00.png", "A; 1", "7"], ["img\\01.png", "", "8"]]
    everything = json.loads(cli(*words, "--keep", "all", "--json").out)
    assert list(everything[0])[:4] == ["path", "ID", "site; ward", "prediction"]
    line = refused(*words, "--keep", "name")
    assert "no column 'name'" in line
    assert line.endswith("expected names of its columns, separated by commas, or 'all'")
    assert "only columns of tables" in refused(
        "predict", run_folder, folder / "img", "--backbone", TINY, "--keep", "id"
    )


def test_a_bad_image_among_those_to_predict(
    cli: Cli, refused: Refused, run_folder: Path, scans: Path, out: Path
) -> None:
    (scans / "test" / "blue_cyst" / "03.png").write_bytes(b"")
    words = ["predict", run_folder, scans / "test", "--backbone", TINY]
    line = refused(*words, "--out", out.with_suffix(".csv"))
    assert "03.png: the file is empty" in line
    assert "--skip-bad" in line
    last = "29 predictions; 1 of 30 images cannot be read, the column 'error' says why\n"
    for quiet in ([], ["--quiet"]):
        status, printed, said = cli(*words, "--skip-bad", *quiet)
        assert (status, said) == (1, last)
    header, *rows = printed.splitlines()
    assert header == "path,prediction,error,p_blue cyst,p_green tumor,p_red stone,unlike_training"
    assert len(rows) == 30
    (bad,) = (row for row in rows if "the file is empty" in row)
    assert bad.endswith("/blue_cyst/03.png,,the file is empty (0 bytes); copy it again or remove it,,,,")
    as_json = json.loads(cli(*words, "--skip-bad", "--json").out, parse_constant=pytest.fail)
    assert [row["prediction"] for row in as_json].count(None) == 1


def test_the_data_folder_and_its_names(
    cli: Cli, refused: Refused, discs: Path, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIOMEDCOOP_DATA", str(discs.parent))
    assert cli("evaluate", run_folder, "--data", "scans", "--backbone", TINY).status == 0
    assert "did you mean scans?" in refused("evaluate", run_folder, "--data", "scan", "--backbone", TINY)


def test_a_run_without_a_test_split_says_first_what_it_does(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, discs: Path, tmp_path: Path
) -> None:
    few = shutil.copytree(discs / "train", tmp_path / "few")
    shutil.copy(few / "red_stone" / "03.png", few / "green_tumor" / "copy.png")
    monkeypatch.setattr("biomedcoop.display.LONG", 0)
    monkeypatch.setattr("biomedcoop.display.LINE_EVERY", 0)
    words = ["--data", few, "--out", tmp_path / "run", "--backbone", TINY, "--method", "lp++", "--set", "epochs=2"]
    shown = cli("train", *words, "--seeds", "5,6")
    assert shown.status == 0, shown.err
    lines = shown.err.splitlines()
    notes = [line for line in lines if line.startswith("note: ")]
    assert lines[: len(notes)] == notes, "all notes come before the work"
    for words in (
        "class 'blue cyst' has only 24 images, too few to set some aside",
        "with 3 divisions into folds (seeds 5, 6, 7), tests each image with classifiers trained on 16 images of each class",
        "The saved model is trained on images of all folds, with seed 5.",
        "2 images are copies of an image of another class; correct the labels",
        "The first is 'green_tumor/copy.png'.",
        "16 training images of each class are used; --shots all uses all 73",
        "lp++ chooses the number of epochs by 5-fold cross-validation within the 48 training images.",
    ):
        assert any(words in note for note in notes), words
    stages = {line.split(":")[0].split(" (")[0] for line in lines[len(notes) :]}
    assert {"training lp++", "cross-validating lp++"} <= stages
    report = (tmp_path / "run" / "report.md").read_text()
    assert "2 images are copies of an image of another class" in report
    assert "copy.png" not in report


def test_a_table_keeps_its_name_and_its_paths(cli: Cli, discs: Path, tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    shutil.copytree(discs, tmp_path / "study" / "scans")
    images = sorted((tmp_path / "study" / "scans").rglob("*.png"))
    spell = [lambda path: str(path), lambda path: f"./{path}", lambda path: path.replace("/", "\\")]
    rows = []
    for number, path in enumerate(images):
        relative = path.relative_to(tmp_path / "study").as_posix()
        listed = str(path) if number % 4 == 3 else spell[number % 3](relative)
        rows.append((listed, path.parent.name, path.parent.parent.name))
    table = tmp_path / "study" / "cases.csv"
    table.write_text("\n".join(["path,label,split", *map(",".join, rows)]))
    shown = cli(*train_words(table, tmp_path / "run"))
    assert shown.status == 0, shown.err
    report = (tmp_path / "run" / "report.md").read_text()
    assert report.startswith("# biomedcoop on cases\n")
    assert "biomedcoop train --data cases.csv " in report
    with (tmp_path / "run" / "predictions.csv").open(newline="") as file:
        written = [row["path"] for row in csv.DictReader(file)]
    assert sorted(written) == sorted(path for path, _, split in rows if split == "test")
    evaluated = cli("evaluate", tmp_path / "run", "--data", table, "--backbone", TINY, "--out", tmp_path / "again")
    assert evaluated.status == 0, evaluated.err
    with (tmp_path / "again" / "predictions.csv").open(newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == written
    assert "--data cases.csv" in (tmp_path / "again" / "report.md").read_text()
    again = cli(*train_words(table, tmp_path / "second", "--split-file", tmp_path / "run" / "split.json"))
    assert again.status == 0, again.err


def test_notes_are_said_once_and_before_the_numbers(cli: Cli, discs: Path, tmp_path: Path) -> None:
    rows = [f"{p},{p.parent.name},{p.parent.name}{i % 4}" for i, p in enumerate(sorted(discs.rglob("test/*/*.png")))]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["path,label,group", *rows]))
    trained = cli(*train_words(table, tmp_path / "run", "--shots", 2))
    assert trained.status == 0, trained.err
    lines = trained.err.splitlines()
    assert len(set(lines)) == len(lines)
    assert sum("There is no test split" in line for line in lines) == 1
    assert " ".join(trained.out.split()).count("! Classes with fewer than 10 test groups: ") == 1
    evaluated = cli("evaluate", tmp_path / "run", "--data", table, "--backbone", TINY, "--json")
    assert "evaluated images were used to train this classifier" in evaluated.err
    content = json.loads(evaluated.out, parse_constant=pytest.fail)
    assert content["rows"]["biomedcoop"]["n_groups"] == 12
    assert [f"note: {note}" for note in content["notes"]] == evaluated.err.splitlines()


# -- output for machines


def test_quiet_leaves_results_and_errors(
    cli: Cli, refused: Refused, run_folder: Path, discs: Path, tmp_path: Path, out: Path
) -> None:
    assert "note: " in cli(*train_words(discs, tmp_path / "loud")).err
    trained = cli(*train_words(discs, tmp_path / "run"), "--quiet")
    assert (trained.status, trained.err) == (0, "")
    assert "30 test images" in trained.out
    evaluate = ["evaluate", run_folder, "--data", discs, "--split", "train", "--backbone", TINY, "--json"]
    loud, quiet = cli(*evaluate), cli(*evaluate, "--quiet")
    assert "note: " in loud.err
    assert (quiet.out, quiet.err) == (loud.out, "")  # the notes stand in the JSON
    predicted = cli("predict", run_folder, discs / "test", "--backbone", TINY, "--out", tmp_path / "p.csv", "--quiet")
    assert (predicted.status, predicted.out, predicted.err) == (0, "", "")
    simulate = ["datasets", "simulate", "kidney-ct", "--train", 1, "--val", 0, "--test", 1, "--out", tmp_path / "ct"]
    assert cli(*simulate, "--quiet").err == ""
    assert "shots" in refused(*train_words(discs, out, "--shots", 25), "--quiet")


def test_long_work_is_shown_unless_quiet(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, run_folder: Path, discs: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr("biomedcoop.display.LONG", 0)
    monkeypatch.setattr("biomedcoop.display.LINE_EVERY", 0)
    predict = ["predict", run_folder, discs / "test", "--backbone", TINY]
    assert "predicting: 30 of 30, 0:00" in cli(*predict).err
    assert cli(*predict, "--quiet").err == ""
    assert "training biomedcoop (loss " in cli(*train_words(discs, tmp_path / "run")).err


def test_json_is_all_there_is_on_stdout(cli: Cli, run_folder: Path, discs: Path, scans: Path, tmp_path: Path) -> None:
    def parsed(*words: object, status: int = 0) -> Any:
        result = cli(*words, "--json")
        assert result.status == status, result.err
        return json.loads(result.out)

    trained = parsed(*train_words(discs, tmp_path / "run"))
    in_file = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert len(in_file.pop("predictions")) == 30
    assert any("Templates (general)" in note for note in trained.pop("notes"))
    assert trained == in_file
    evaluated = parsed("evaluate", run_folder, "--data", discs, "--backbone", TINY)
    assert evaluated["rows"] == trained["rows"]
    predicted = parsed("predict", run_folder, discs / "test" / "red_stone", "--backbone", TINY)
    assert len(predicted) == 10
    assert set(predicted[0]) == {"path", "prediction", "p_blue cyst", "p_green tumor", "p_red stone", "unlike_training"}
    (tmp_path / "bad.png").touch()
    to_file = ["predict", run_folder, discs / "test", "--backbone", TINY, "--quiet", "--out", tmp_path / "p.csv"]
    told = parsed(*to_file)
    with (tmp_path / "p.csv").open() as file:
        marked = sum(int(row["unlike_training"]) for row in csv.DictReader(file))
    assert (told["out"], told["n_images"], told["unreadable"]) == (str(tmp_path / "p.csv"), 30, 0)
    assert told["unlike_training"] == marked
    told = parsed(*to_file, tmp_path / "bad.png", "--skip-bad", "--overwrite", status=1)
    assert (told["n_images"], told["unreadable"]) == (31, 1)
    assert parsed("datasets", "check", scans)["problems"] == []
    (scans / "train" / "red_stone" / "00.png").write_bytes(b"")
    assert "red_stone/00.png" in parsed("datasets", "check", scans, status=1)["problems"][0]
    drawn = parsed("datasets", "simulate", "kidney-ct", "--out", tmp_path / "ct", "--train", 1, "--val", 0, "--test", 1)
    assert drawn["images"] == 8
    assert drawn["dataset"].startswith("simulated:kidney-ct")
    assert parsed("backbones", "list")[0]["name"] == "mini"
    assert all(check["ok"] for check in parsed("doctor").values())


# -- help


def test_every_command_explains_itself(cli: Cli) -> None:
    for command in ([], ["prompts"], ["datasets"], ["backbones"], *COMMANDS):
        for option in ("--help", "-h"):
            result = cli(*command, option)
            assert result.status == 0
            assert "Usage: biomedcoop" in result.out
            assert result.err == ""
            if command in COMMANDS:
                assert "--json" in result.out
    assert "Not a medical device" in cli("--help").out
    # the lines of a paragraph are as long as the terminal allows, not as long as those of the source
    paragraph = re.search(r"^ Below each map.*?\n *\n", cli("explain", "--help").out, re.DOTALL | re.MULTILINE)
    assert paragraph is not None
    assert len(paragraph[0].split("\n")[0].rstrip()) > 150
    assert cli("--version").out.startswith("biomedcoop 0.")


@pytest.mark.parametrize(
    ("words", "expected", "imported"),
    [(["--help"], "Usage: biomedcoop", []), (["methods", "list"], "lp++", ["numpy"])],
)
def test_what_only_informs_waits_for_no_heavy_import(words: list[str], expected: str, imported: list[str]) -> None:
    program = (
        f"import sys\nfrom biomedcoop.cli import main\nsys.argv = ['biomedcoop', *{words}]\n"
        "try: main()\nfinally: print(*sorted({'torch', 'matplotlib', 'PIL', 'numpy', 'sklearn', 'pyarrow', "
        "'safetensors', 'tokenizers', 'huggingface_hub'} & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert expected in result.stdout
    assert result.stderr.split() == imported


def test_a_backbone_loads_without_torchs_compiler() -> None:
    program = (
        "import sys\nfrom biomedcoop.backbones import load_backbone\nload_backbone('mini')\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_command_lines_that_say_nothing_or_nonsense(cli: Cli, refused: Refused, out: Path) -> None:
    for command in ([], ["prompts"], ["datasets"], ["backbones"]):
        result = cli(*command)
        assert result.status == 2
        assert "Usage: biomedcoop" in result.out
    assert "'trian'. Did you mean 'train'?" in refused("trian")
    assert "Missing option '--data'; see 'biomedcoop train --help'" in refused("train")
    assert "--shots 'four' must be" in refused("train", "--data", "x", "--out", out, "--shots", "four")
    assert "--shotz" in refused("train", "--data", "x", "--out", out, "--shotz", "4")
    assert "epochs" in refused(*train_words("x", out, "--set", "epochs"))


def test_debug_shows_where_an_error_comes_from(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    for words in (["--debug", "datasets", "check", "nowhere"], ["datasets", "check", "nowhere", "--debug"]):
        monkeypatch.setattr(sys, "argv", ["biomedcoop", *words])
        with pytest.raises(UserError, match="nowhere"):
            main()


# -- datasets, doctor


def test_datasets_check_of_data_that_are_only_tested_on(cli: Cli, refused: Refused, scans: Path) -> None:
    only(scans, "red_stone")
    assert "one class ('red_stone'" in refused("datasets", "check", scans)
    good = cli("datasets", "check", scans, "--for-testing")
    assert (good.status, good.err) == (0, "")
    assert "no problem found" in good.out


def test_a_folder_whose_name_is_no_utf8_may_hold_results(odd_run: tuple[Path, str]) -> None:
    place, printed = odd_run
    assert r"b\udce4/model" in printed
    assert (place / "metrics.json").exists()


def test_predict_says_once_what_it_leaves_out(cli: Cli, run_folder: Path, scans: Path, tmp_path: Path) -> None:
    (scans / "test" / "IM0001").touch()
    (scans / "test" / "loop").symlink_to("..")
    done = cli("predict", run_folder, scans / "test", "--backbone", TINY, "--out", tmp_path / "p.csv")
    assert done.err.splitlines() == [
        "note: 1 file in test is not an image and was ignored (no suffix: 1)",
        f"30 predictions in {tmp_path / 'p.csv'}",
    ]


def test_datasets_check(cli: Cli, scans: Path) -> None:
    good = cli("datasets", "check", scans)
    assert good.status == 0
    assert "no problem found" in good.out
    assert cli("datasets", "check", scans, "--shots", 25).status == 1
    shutil.copy(scans / "train" / "red_stone" / "00.png", scans / "test" / "red_stone" / "copy.png")
    for number in range(24):
        (scans / "train" / "blue_cyst" / f"{number:02d}.png").write_text("no image")
    bad = cli("datasets", "check", scans)
    assert bad.status == 1
    assert "same image: train/red_stone/00.png, test/red_stone/copy.png" in bad.out
    assert "unreadable: train/blue_cyst/00.png: the content is not a readable image" in bad.out
    assert "problem: unreadable images: 24" in bad.out
    assert bad.out.count("\nunreadable: ") == 20
    assert "… and more; --json lists all" in bad.out


def test_simulated_images_are_written_and_read(cli: Cli, refused: Refused, tmp_path: Path) -> None:
    words = [
        "datasets",
        "simulate",
        "breast-ultrasound",
        "--out",
        tmp_path / "us",
        "--train",
        1,
        "--val",
        0,
        "--test",
        1,
    ]
    drawn = cli(*words)
    assert drawn.status == 0
    assert f"6 simulated images in {tmp_path / 'us'}" in drawn.err
    assert cli("datasets", "check", tmp_path / "us", "--shots", 1).status == 0
    assert "us exists" in refused(*words)
    assert "breast-ultrasound" in refused("datasets", "simulate", "brest", "--out", tmp_path / "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["us"]


def test_another_precision_is_asked_for_and_told(cli: Cli, discs: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert cli(*train_words(discs, out, "--precision", "bfloat16")).status == 0
    report = (out / "report.md").read_text()
    assert "Image features: computed in bfloat16." in report
    assert "--precision bfloat16" in report
    scan, exact = discs / "test" / "red_stone" / "01.png", []
    for precision in ("bfloat16", "float32"):
        words = ("--backbone", TINY, "--precision", precision, "--json")
        assert cli("evaluate", out, "--data", discs, *words).status == 0
        (row,) = json.loads(cli("predict", out, scan, *words).out)
        exact.append(row["p_red stone"])
    assert exact[0] != exact[1]
    assert exact[0] == pytest.approx(exact[1], abs=0.05)


def test_doctor(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    healthy = cli("doctor")
    assert healthy.status == 0
    assert "loads and encodes" in healthy.out
    assert "times as fast in bfloat16" in healthy.out
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BIOMEDCOOP_CACHE", str(tmp_path / "file"))
    ill = cli("doctor", "--json")
    assert ill.status == 1
    assert json.loads(ill.out)["feature store"]["ok"] is False


# -- bad input: data that cannot be trained on


def only(folder: Path, *kept: str) -> Path:
    for split in ("train", "test"):
        for child in (folder / split).iterdir():
            if child.name not in kept:
                shutil.rmtree(child)
    return folder


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder)
    folder.mkdir()
    return folder


def without_training_images(folder: Path) -> Path:
    shutil.rmtree(folder / "train" / "red_stone")
    return folder


def named_twice(folder: Path) -> Path:
    (folder / "train" / "red_stone").rename(folder / "train" / "Green tumor")
    return folder


def array_file(folder: Path) -> Path:
    images, labels = np.zeros((6, 32, 32), dtype=np.uint8), np.array([0, 1, 0, 1, 0, 5])
    np.savez(folder / "scans.npz", train_images=images, train_labels=labels, class_names=np.array(["a", "b"]))
    return folder / "scans.npz"


def split_file(folder: Path, *more: Any) -> Path:
    entries = [[f"train/blue_cyst/{n:02d}.png", 0, "blue cyst"] for n in range(8)]
    entries += [[f"train/red_stone/{n:02d}.png", 1, "red stone"] for n in range(8)]
    content = {"train": [*entries, *more], "val": [], "test": [["test/red_stone/00.png", 1, "red stone"]]}
    (folder / "split.json").write_text(json.dumps(content))
    return folder


def outside(folder: Path) -> Path:
    shutil.copy(folder / "test" / "red_stone" / "01.png", folder.parent / "secret.png")
    return split_file(folder, ["../secret.png", 0, "blue cyst"])


@pytest.mark.parametrize(
    ("spoil", "words", "way"),
    [
        (lambda scans: scans / "nowhere", "/scans/nowhere", "check the path"),
        (emptied, "/scans: no image in it", "one folder per class"),
        (lambda scans: only(scans, "red_stone"), "one class ('red_stone'", "at least two"),
        (without_training_images, "'red stone' has no image in train", "add some or remove the class"),
        (named_twice, "'Green tumor'", "rename one"),
        (array_file, "label 5 is not in the class list", "from 0 to 1"),
        (lambda scans: split_file(scans, ["train/x.png", 3, "polyp"]), "labels are 0, 1, 3", "0 to 2 without gaps"),
        (lambda scans: split_file(scans, ["train/x.png", 0, "blue cyst"]), "'train/x.png'", "put the images there"),
        (outside, "'../secret.png' is a path outside", "copy the image into the folder"),
        (lambda scans: split_file(scans, ["train/blue_cyst/00.png", 1, "x"]), "'red stone' and 'x'", "give it one"),
    ],
)
def test_data_that_cannot_be_trained_on(
    refused: Refused, scans: Path, out: Path, spoil: Callable[[Path], Path], words: str, way: str
) -> None:
    line = refused(*train_words(spoil(scans), out))
    assert words in line
    assert way in line


# -- bad input: images


def huge_png() -> bytes:
    """30,000 × 30,000 px, all black, a few kB: a well-formed file that unfolds to 900 MB."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(30_001 * 100), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


BAD_IMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda png: b"", "the file is empty"),
    "truncated": (lambda png: png[: len(png) // 2], "truncated"),
    "text": (lambda png: b"no image but a letter", "whatever the suffix says"),
    "huge": (lambda png: huge_png(), "make the image smaller"),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
@pytest.mark.parametrize("split", ["train", "test"])
def test_images_that_cannot_be_used(refused: Refused, scans: Path, out: Path, kind: str, split: str) -> None:
    spoil, words = BAD_IMAGES[kind]
    image = scans / split / "green_tumor" / "05.png"
    image.write_bytes(spoil(image.read_bytes()))
    peak = Peak()
    before, start = peak.mebibytes(), time.process_time()
    assert before
    line = refused(*train_words(scans, out, "--shots", 24), begun=True)
    assert f"{split}/green_tumor/05.png: " in line
    assert words in line
    assert peak.mebibytes() - before < 200  # the huge one would need 900
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--shots", 500], "'blue cyst' has 24 images in train but --shots 500"),
        (["--set", "foo=1"], "no setting 'foo'"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--method", "lp++", "--recipe", "paper", "--shots", 24], "needs validation images"),
        # two images of each class: the model has one for training and one for validation, a fold only one
        (["--data", "{pairs}", "--method", "lp++", "--recipe", "paper", "--shots", 1], "needs validation images"),
        (
            ["--data", "{single}", "--shots", "all"],
            "class 'red stone' has one training image, so it cannot be both trained on and tested",
        ),
    ],
)
def test_no_note_stands_before_an_error_that_can_be_known_first(
    refused: Refused, discs: Path, out: Path, tmp_path: Path, more: list[object], words: str
) -> None:
    plain, pairs, single = (shutil.copytree(discs / "train", tmp_path / name) for name in ("plain", "pairs", "single"))
    for path in [p for folder in pairs.iterdir() for p in sorted(folder.iterdir())[2:]]:
        path.unlink()
    for path in sorted((single / "red_stone").iterdir())[1:]:
        path.unlink()
    more = [str(word).format(pairs=pairs, single=single) for word in more]
    assert words in refused(*train_words(plain, out, *more))


# -- bad input: names and numbers


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--method", "biomedcop"], "no method 'biomedcop'; did you mean biomedcoop"),
        (["--compare", "zero-shot,zeroshot"], "no method 'zeroshot'; did you mean zero-shot"),
        (["--backbone", "minni"], "no backbone 'minni': neither a known name nor a folder; did you mean mini?"),
        (["--data", "busy"], "'busy'"),
        (["--shots", 0], "--shots 0 must be a whole number of at least 1, e.g. --shots 16, or --shots 'all'"),
        (["--shots", -3], "--shots -3 must be"),
        (["--n-bootstrap", 1], "--n-bootstrap 1 must be a whole number from 40 to 1000000, e.g. --n-bootstrap 1000"),
        (["--views", "some"], "--views 'some' must be"),
        (["--shots", 25], "'blue cyst' has 24 images in train but --shots 25; lower --shots, add images, or"),
        (["--recipe", "default"], "no recipe 'default'; it is called 'general'"),
        (["--recipe", "base-to-novel"], "no recipe 'base-to-novel'; it is called 'paper-novel'"),
        (["--set", "epoch=3"], "no setting 'epoch'; did you mean epochs"),
        (["--set", "lr=fast"], "lr='fast'"),
        (["--seed", -1], "--seeds -1: give at least one, each a whole number"),
        (["--seeds", "a,2"], "a"),
        (["--seeds", "3,3"], "--seeds 3,3: a seed is there twice"),
        (["--prompts", "nowhere.json"], "nowhere.json"),
        (
            ["--method", "coop", "--prompts", "library:bus"],
            "coop reads no sentences about the classes; leave --prompts out",
        ),
        (["--split-file", "nowhere.json"], "nowhere.json"),
        (["--device", "abacus"], "'abacus'"),
        (["--precision", "int4"], "precision 'int4' is not known; choose float32, bfloat16, int8, auto"),
    ],
)
def test_names_and_numbers_that_cannot_be_used(
    refused: Refused, discs: Path, out: Path, more: list[Any], words: str
) -> None:
    assert words in refused(*train_words(discs, out, *more))


def test_a_dataset_name_with_near_matches(refused: Refused, out: Path) -> None:
    assert "did you mean busi" in refused(*train_words("bussi", out))


# -- bad input: where the results go


def test_an_existing_folder(cli: Cli, refused: Refused, discs: Path, run_folder: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()}
    line = refused(*train_words(discs, run_folder))
    assert f"{run_folder} exists already" in line
    assert "--overwrite" in line
    assert {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()} == before
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("John")
    assert "holds other files" in refused(*train_words(discs, tmp_path / "letters", "--overwrite"))
    again = shutil.copytree(run_folder, tmp_path / "run")
    (again / "report.md").write_text("old")
    assert cli(*train_words(discs, again, "--overwrite")).status == 0
    assert {path.relative_to(run_folder): content for path, content in before.items()} == {
        path.relative_to(again): path.read_bytes() for path in again.rglob("*") if path.is_file()
    }


def test_a_place_that_cannot_be_written(refused: Refused, discs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "run", Path("/proc/biomedcoop/run")):
        line = refused(*train_words(discs, place))
        assert f"cannot write {place}" in line
        assert "choose another place" in line
    assert "is a file" in refused(*train_words(discs, tmp_path / "file"))


def test_a_disk_that_fills_up(refused: Refused, discs: Path, run_folder: Path, out: Path) -> None:
    words = train_words(discs, out)
    with full_disk(20_000):  # the vectors fit, the report does not
        line = refused(*words, begun=True)
    assert "cannot write" in line
    assert "make room" in line
    predictions = out.with_suffix(".csv")
    with full_disk(1000):
        line = refused("predict", run_folder, discs / "test", "--backbone", TINY, "--out", predictions)
    assert f"cannot write {predictions}" in line


def test_a_cache_on_a_disk_that_fills_up(
    refused: Refused, discs: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIOMEDCOOP_CACHE", str(tmp_path / "cache"))
    with full_disk(500):
        line = refused(*train_words(discs, out), begun=True)
    assert str(tmp_path / "cache") in line


# -- bad input: models


def test_a_corrupted_classifier(refused: Refused, discs: Path, run_folder: Path, out: Path, tmp_path: Path) -> None:
    model = shutil.copytree(run_folder / "model", tmp_path / "model")
    content = bytearray((model / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (model / "model.safetensors").write_bytes(content)
    line = refused("predict", model, discs / "test", "--backbone", TINY, "--out", out.with_suffix(".csv"))
    assert "model.safetensors: damaged" in line
    assert line == refused("evaluate", model, "--data", discs, "--backbone", TINY)
    assert "needs the backbone 'model'" in refused("predict", run_folder, discs / "test")
    assert "is not a saved classifier" in refused("predict", discs, discs / "test")
    assert "device 'abacus'" in refused(
        "evaluate", run_folder, "--data", discs, "--backbone", TINY, "--device", "abacus"
    )


Weights = dict[str, torch.Tensor]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("visual.head.proj.weight"), "lacks 'visual.head.proj.weight'"),
        (lambda w: w.pop("visual.trunk.norm.bias"), "lacks 'visual.trunk.norm.bias'"),
        (lambda w: w.update(extra=torch.zeros(2)), "has unexpected 'extra'"),
        (lambda w: w["visual.trunk.norm.bias"].__setitem__(0, float("nan")), "'visual.trunk.norm.bias' holds values"),
    ],
)
def test_a_backbone_that_cannot_be_trusted(
    refused: Refused, discs: Path, out: Path, tmp_path: Path, change: Callable[[Weights], object], words: str
) -> None:
    backbone = shutil.copytree(TINY, tmp_path / "spoilt")
    weights = {name: tensor.clone() for name, tensor in load_file(backbone / "open_clip_model.safetensors").items()}
    change(weights)
    save_file(weights, backbone / "open_clip_model.safetensors")
    line = refused(*train_words(discs, out, "--backbone", backbone))
    assert f"{backbone}: " in line
    assert words in line


# -- being stopped


@pytest.mark.parametrize("signal_number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_being_stopped_leaves_one_line_and_nothing_else(
    discs: Path, out: Path, tmp_path: Path, signal_number: signal.Signals
) -> None:
    cache = tmp_path / "cache"
    command = [sys.executable, "-m", "biomedcoop", *train_words(discs, out, "--set", "epochs=1000000")]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "BIOMEDCOOP_CACHE": str(cache)},
        # a shell starts its background jobs with SIGINT ignored, and so does what runs the tests there
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 300
        # the vectors of test images, training images and sentences are stored; training comes next
        while len(list(cache.rglob("*.safetensors"))) < 3:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal_number)
        printed, said = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130
    assert printed == ""
    note, *_, last = said.splitlines()
    assert note.startswith("note: Templates (general) are used")  # before the long work
    assert last == "interrupted; no result was written"


@pytest.mark.slow
def test_a_reader_that_goes_away(run_folder: Path, discs: Path, tmp_path: Path) -> None:
    image = next((discs / "test").rglob("*.png"))
    for number in range(300):  # more lines than are written at a time
        (tmp_path / f"{number:04d}.png").symlink_to(image)
    command = [sys.executable, "-m", "biomedcoop", "predict", run_folder, tmp_path, "--backbone", TINY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("path,prediction")
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode in (0, 1)  # whether all fitted into the pipe is the system's affair


def test_data_without_their_option(refused: Refused) -> None:
    assert "(scans); name the data with --data, e.g. --data scans; see 'biomedcoop train --help'" in refused(
        "train", "scans"
    )
    assert "--data" not in refused("doctor", "scans")
