"""``biomedcoop methods``, and what methods change in other commands: recipes, validation images, new classes, long work."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from biomedcoop.methods import all_methods, get_method
from biomedcoop.methods.recipes import recipe_settings
from biomedcoop.methods.recommended import describe, recommended

TINY = str(Path(__file__).parents[1] / "parity_a" / "model")
Cli = Callable[..., Any]
Refused = Callable[..., str]


def train(out: Path, data: Path, method: str, *more: object) -> list[object]:
    words = ["train", "--data", data, "--backbone", TINY, "--shots", 2, "--compare", "none", "--out", out]
    return [*words, "--method", method, *more]


def test_all_methods_are_listed(cli: Cli) -> None:
    listed = cli("methods", "list")
    assert listed.status == 0
    advice, _, table = listed.out.partition("\n\n")
    assert advice.split() == " ".join(describe(recommended())).split()
    assert all(f"\n{name} " in table for name in all_methods())
    rows = {row["name"]: row for row in json.loads(cli("methods", "list", "--json").out)}
    assert list(rows) == list(all_methods())
    assert rows["coop"]["paper"] == get_method("coop").paper
    assert rows["biomedcoop"]["uses_sentences"] is True
    assert rows["tip-adapter"]["chooses"] == "β and α"
    assert rows["coop"]["chooses"] == ""
    assert rows["linear-probe"]["retargets"] is False


def test_settings_are_shown_with_their_meaning(cli: Cli, refused: Refused) -> None:
    shown = cli("methods", "show", "biomedcoop").out
    assert "BiomedCoOp (Koleilat et al. 2025, arXiv 2411.15232)" in shown
    for word in ("sccm_weight", "kdsp_weight", "threshold", "class_position", "0.0025", "λ1", "standard"):
        assert word in shown
    assert "1.0, others by" in cli("methods", "show", "kgcoop").out
    assert "recipe fast" in shown
    about = json.loads(cli("methods", "show", "kgcoop", "--json").out)
    assert about["recipe_fast"] == {**about["recipe_general"], **recipe_settings("fast", "kgcoop")}
    settings = about["settings"]
    assert settings["weight"] == {
        "default": 1.0,
        "allowed": "at least 0",
        "meaning": "W, weight of the distance to the template's embedding",
    }
    assert settings["lr"]["default"] == 0.002
    assert settings["n_context"]["meaning"].startswith("number M")
    assert "\nchooses" not in shown
    probe = " ".join(cli("methods", "show", "linear-probe").out.split())
    assert (
        "chooses: C by 5-fold cross-validation within the training images where that is not possible: C = 10" in probe
    )
    assert "with recipes paper and paper-novel: on validation images" in probe
    adapter = " ".join(cli("methods", "show", "clip-adapter").out.split())
    assert "chooses: α (not with recipe fast, paper, paper-novel) by 5-fold cross-validation" in adapter
    assert "on validation images" not in adapter
    assert "did you mean kgcoop" in refused("methods", "show", "kgcop")


def test_settings_are_read_at_eighty_columns(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = cli("methods", "show", "biomedcoop").out
    assert max(map(len, shown.splitlines())) <= 80
    assert "\nepochs = 100; recipe fast: 9 (at least 1)\n    passes over the training images\n" in shown
    assert '\nclass_suffix = "" (a text)\n' in shown


def test_a_published_recipe_takes_training_images_for_validation(cli: Cli, discs: Path, tmp_path: Path) -> None:
    """The discs have no validation split; the two images of each class it takes are none of the two drawn."""
    result = cli(*train(tmp_path / "run", discs, "tip-adapter", "--recipe", "paper"))
    assert result.status == 0
    note = "tip-adapter chooses β and α on 6 training images that were not drawn: the data have no validation split."
    assert note in result.err
    draw = json.loads((tmp_path / "run" / "few_shot.json").read_text())
    train_keys, val_keys = ({row[0] for row in draw[part]} for part in ("train", "val"))
    assert (len(train_keys), len(val_keys)) == (6, 6)
    assert not train_keys & val_keys
    description = json.loads((tmp_path / "run" / "model" / "classifier.json").read_text())
    assert len(description["facts"]["training_images"]) == 12
    assert (tmp_path / "run" / "report.md").read_text().count(note) == 1
    compared = train(tmp_path / "beside", discs, "zero-shot", "--compare", "tip-adapter", "--recipe", "paper")
    assert note in cli(*compared).err


def test_without_images_left_for_validation(refused: Refused, discs: Path, tmp_path: Path) -> None:
    line = refused(*train(tmp_path / "run", discs, "lp++", "--shots", 24, "--recipe", "paper"))
    assert "with recipe paper, lp++ needs validation images: class 'blue cyst' has no training image left" in line
    assert "use recipe general, which chooses by cross-validation within the training images" in line
    assert not (tmp_path / "run").exists()


def with_validation_split(discs: Path, folder: Path) -> Path:
    data = shutil.copytree(discs, folder)
    for classes in sorted((data / "train").iterdir()):
        (data / "val" / classes.name).mkdir(parents=True)
        for image in sorted(classes.iterdir())[:5]:
            image.rename(data / "val" / classes.name / image.name)
    return data


def test_a_published_recipe_uses_the_validation_split_where_there_is_one(cli: Cli, discs: Path, tmp_path: Path) -> None:
    data = with_validation_split(discs, tmp_path / "scans")
    result = cli(*train(tmp_path / "run", data, "linear-probe", "--recipe", "paper"))
    assert result.status == 0
    assert "not drawn" not in result.err
    assert "linear-probe chooses C on 6 validation images." in (tmp_path / "run" / "report.md").read_text()
    draw = json.loads((tmp_path / "run" / "few_shot.json").read_text())
    assert all(key.startswith("val") for key, *_ in draw["val"])
    assert len(draw["val"]) == 6


def test_the_other_recipes_choose_within_the_training_images(cli: Cli, discs: Path, tmp_path: Path) -> None:
    data = with_validation_split(discs, tmp_path / "scans")
    result = cli(*train(tmp_path / "run", data, "lp++"))
    assert result.status == 0
    assert "not drawn" not in result.err
    report = (tmp_path / "run" / "report.md").read_text()
    assert "lp++ chooses the number of epochs by 2-fold cross-validation within the 6 training images." in report
    assert "val" not in json.loads((tmp_path / "run" / "few_shot.json").read_text())
    description = json.loads((tmp_path / "run" / "model" / "classifier.json").read_text())
    assert len(description["facts"]["training_images"]) == 6


@pytest.fixture(scope="module")
def trained(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import biomedcoop as bc

    folder = tmp_path_factory.mktemp("coop") / "run"
    bc.train(
        discs,
        folder,
        method="coop",
        backbone=TINY,
        shots=2,
        compare=(),
        n_bootstrap=40,
        settings={"epochs": 2},
        html=False,
    )
    return folder


def test_new_classes_on_the_command_line(
    cli: Cli, refused: Refused, trained: Path, discs: Path, tmp_path: Path
) -> None:
    words = ["predict", trained, discs / "test" / "red_stone", "--backbone", TINY]
    known = cli(*words).out.splitlines()
    new = cli(*words, "--classes", 'red stone, "abscess, large", polyp, blue cyst').out.splitlines()
    assert known[0].endswith(",p_blue cyst,p_green tumor,p_red stone")
    assert new[0].endswith(',p_red stone,"p_abscess, large",p_polyp,p_blue cyst')
    assert len(new) == len(known) == 11
    assert "give at least two names that differ" in refused(*words, "--classes", "one")
    line = refused("evaluate", trained, "--data", discs, "--backbone", TINY, "--classes", "blue cyst, polyp")
    assert "the class 'green tumor'" in line
    same = cli(
        "evaluate",
        trained,
        "--data",
        discs,
        "--backbone",
        TINY,
        "--json",
        "--classes",
        "red stone, green tumor, blue cyst",
    )
    plain = cli("evaluate", trained, "--data", discs, "--backbone", TINY, "--json")
    accuracy = [json.loads(result.out)["rows"]["coop"]["accuracy"] for result in (same, plain)]
    assert accuracy[0] == accuracy[1]
    assert cli(*train(tmp_path / "probe", discs, "linear-probe")).status == 0
    line = refused("predict", tmp_path / "probe", discs / "test", "--backbone", TINY, "--classes", "a, b")
    assert "linear-probe cannot take new classes" in line
    assert "methods that can: biomed-dpt, biomedcoop, clip-adapter, clip-svd, cocoop, coop" in line


def test_cocoop_says_first_how_long_it_takes(cli: Cli, discs: Path, tmp_path: Path) -> None:
    result = cli(*train(tmp_path / "run", discs, "cocoop", "--set", "epochs=1"))
    assert result.status == 0
    assert "note: cocoop runs the text tower for every image and class: training will take about" in result.err
    assert cli("predict", tmp_path / "run", discs / "test", "--backbone", TINY).status == 0


def test_recipes_on_the_command_line(cli: Cli, refused: Refused, discs: Path, tmp_path: Path) -> None:
    words = ["--set", "batch_size=6", "--recipe"]
    result = cli(*train(tmp_path / "run", discs, "coop", *words, "paper-novel"))
    assert result.status == 0
    settings = json.loads((tmp_path / "run" / "metrics.json").read_text())["settings"]
    assert (settings["epochs"], settings["batch_size"]) == (50, 6)
    assert "--recipe paper-novel" in (tmp_path / "run" / "report.md").read_text()
    assert "no recipe 'best'; known: general, fast, paper, paper-novel" in refused(
        *train(tmp_path / "other", discs, "coop", *words, "best")
    )
