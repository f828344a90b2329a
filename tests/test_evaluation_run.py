"""A saved classifier on other images: it is compared and judged, and the folder is that of a training run without the model."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone
from biomedcoop.classifier.domain import Domain
from biomedcoop.errors import Note

FILES = {"metrics.json", "report.md", "confusion.png", "predictions.csv", "evaluation.json"}


@pytest.fixture(scope="module")
def clf(discs: Path, tiny: Backbone) -> bc.Classifier:
    return bc.fit(bc.load_dataset(discs), backbone=tiny, method="tip-adapter", shots=8)


@pytest.fixture
def clinic(discs: Path, tmp_path: Path) -> Path:
    """Other images without splits, with another name for one class, and a class that belongs to another one."""
    folder = shutil.copytree(discs / "test", tmp_path / "clinic")
    (folder / "green_tumor").rename(folder / "Neoplasm")
    for number in range(3):
        (folder / "calculus").mkdir(exist_ok=True)
        (folder / "red_stone" / f"0{number}.png").rename(folder / "calculus" / f"0{number}.png")
    return folder


RENAME = {"neoplasm": "green tumor", "calculus": "red stone"}


def test_the_folder_of_an_evaluation(clf: bc.Classifier, clinic: Path, tmp_path: Path) -> None:
    report = bc.compare(clf, clinic, rename=RENAME, out=tmp_path / "out", n_bootstrap=40, html=False)
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert len(written.pop("predictions")) == report.metrics.n_images
    assert written == json.loads(json.dumps(report.to_dict()))
    assert (written["split"], written["trained_on"], written["counts"]) == ("all", "scans", {"all": [10, 10, 10]})
    assert list(written["rows"]) == ["tip-adapter", "zero-shot", "majority class"]
    with (tmp_path / "out" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    right = [row["truth"] == row["prediction"] for row in rows]
    assert np.mean(right) == pytest.approx(written["rows"]["tip-adapter"]["accuracy"]["value"], abs=1e-6)
    assert {row["truth"] for row in rows} == set(clf.class_names)
    assert sum(int(row["unlike_training"]) for row in rows) == written["unlike_training"]
    text = (tmp_path / "out" / "report.md").read_text()
    assert text.index(report.verdict[0].text) < text.index("Not a medical device.")
    assert "was trained on 8 images per class (24 in total) of scans" in text
    assert "It is tested here on images of clinic." in text
    assert "--rename 'neoplasm=green tumor'" in text
    assert str(tmp_path) not in text


def test_the_same_numbers_as_evaluate_and_as_the_training_run(discs: Path, tiny: Backbone, tmp_path: Path) -> None:
    trained = bc.train(
        discs, tmp_path / "run", backbone=tiny, method="tip-adapter", shots=8, n_bootstrap=40, html=False
    )
    clf, data = bc.load(tmp_path / "run", tiny), bc.load_dataset(discs)
    report = bc.compare(clf, data, n_bootstrap=40)
    assert report.rows == trained.rows
    assert report.metrics == bc.evaluate(clf, data, n_bootstrap=40)
    assert clf.facts["test"]["unlike_training"] == trained.unlike_training == report.unlike_training


def test_zero_shot_has_the_classifiers_classes_and_template(discs: Path, tiny: Backbone) -> None:
    data = bc.load_dataset(discs)
    own = {"template": "a red photo of {}"}
    clf = bc.fit(data, backbone=tiny, method="tip-adapter", shots=2, settings=own)
    row = bc.compare(clf, data, n_bootstrap=40).rows["zero-shot"]
    assert row == bc.evaluate(bc.fit(data, backbone=tiny, method="zero-shot", settings=own), data, n_bootstrap=40)
    zero_shot = bc.fit(data, backbone=tiny, method="zero-shot")
    assert list(bc.compare(zero_shot, data, n_bootstrap=40).rows) == ["zero-shot", "majority class"]


def test_names_too_long_for_zero_shot_are_no_obstacle(discs: Path, tiny: Backbone) -> None:
    data = bc.load_dataset(discs)
    data = replace(data, class_names=("blue cyst " * 300, *data.class_names[1:]))
    clf = bc.fit(data, backbone=tiny, method="linear-probe", shots=2)
    report = bc.compare(clf, data, n_bootstrap=40)
    assert list(report.rows) == ["linear-probe", "majority class"]
    assert any(note.startswith("There is no comparison with zero-shot: ") for note in report.notes)


def test_images_unlike_the_training_images_are_an_alarm_with_a_way_out(clf: bc.Classifier, discs: Path) -> None:
    assert clf.domain is not None
    strict = replace(clf, domain=Domain(clf.domain.means, -1.0))
    data = replace(bc.load_dataset(discs), name="elsewhere", labels=np.arange(102) % 3)  # labels that nobody can know
    with pytest.warns(Note, match="30 of 30 images are unlike the training images"):
        report = bc.compare(strict, data, n_bootstrap=40)
    (alarm,) = (f for f in report.verdict if f.kind == "images unlike the training images")
    assert alarm.alarm
    assert report.verdict[-1].text == "Train again with images of this source among the training images."
    lax = replace(clf, domain=Domain(clf.domain.means, 2.0))
    assert "unlike" not in str(bc.compare(lax, data, n_bootstrap=40).verdict)


def test_a_path_without_splits_on_which_the_classifier_was_trained(discs: Path, tiny: Backbone, tmp_path: Path) -> None:
    folder = shutil.copytree(discs / "train", tmp_path / "own")
    for path in (discs / "test").rglob("*.png"):
        shutil.copy(path, folder / path.parent.name / f"test{path.name}")
    clf = bc.fit(bc.load_dataset(folder), backbone=tiny, method="tip-adapter", shots=4)
    report = bc.compare(clf, folder, n_bootstrap=40)
    assert (report.split, report.metrics.n_images, report.leaks) == ("test", 30, ())
    with pytest.warns(Note, match="12 of the 102 evaluated images were used to train"):
        assert bc.compare(clf, folder, "all", n_bootstrap=40).metrics.n_images == 102
    folder = shutil.copytree(discs / "train", tmp_path / "few")
    more: dict[str, Any] = {"method": "clip-adapter", "shots": 18, "settings": {"epochs": 1}}
    cross_validated = bc.train(folder, tmp_path / "run", backbone=tiny, n_bootstrap=40, **more, html=False)
    assert cross_validated.comparison.predictions.folds
    assert cross_validated.unlike_training is None
    report = bc.compare(bc.load(tmp_path / "run", tiny), folder, n_bootstrap=40)  # it may have learned from any image
    assert (report.split, len(report.leaks)) == ("all", 1)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"source": "clinic"},
            "'Neoplasm', the classifier knows: blue cyst, green tumor, red stone; give its name there",
        ),
        ({"source": "clinic", "out": "clinic/out"}, "is inside the dataset"),
        ({"source": "data", "split_file": "split.json"}, "split_file belongs to a path"),
        ({"source": 7}, "data must be a dataset"),
        ({"source": "data", "n_bootstrap": 39}, "n_bootstrap=39 must be a whole number from 40"),
        ({"source": "data", "out": "taken"}, "taken is a file"),
    ],
)
def test_what_compare_refuses(
    clf: bc.Classifier, discs: Path, clinic: Path, given: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clinic.parent)
    Path("taken").touch()
    source = given.pop("source")
    before = sorted(clinic.parent.rglob("*"))
    with pytest.raises(bc.UserError) as caught:
        bc.compare(clf, bc.load_dataset(discs) if source == "data" else source, **given)
    assert words in str(caught.value)
    assert sorted(clinic.parent.rglob("*")) == before


def test_the_command_writes_the_same(
    cli: Callable[..., Any], refused: Callable[..., str], clf: bc.Classifier, clinic: Path, tmp_path: Path
) -> None:
    clf.save(tmp_path / "model")
    backbone = Path(__file__).parent / "parity_a" / "model"
    words = ["evaluate", tmp_path / "model", "--data", clinic, "--backbone", backbone]
    line = refused(*words, "--rename", "neoplasm")
    assert line == "error: --rename 'neoplasm' is not of the form OLD=NEW, e.g. --rename 'covid=covid lungs'"
    twice = ["--rename", "neoplasm=red stone", "--rename", "neoplasm=blue cyst"]
    assert "--rename gives the class 'neoplasm' two names" in refused(*words, *twice)
    words += [f"--rename={old}={new}" for old, new in RENAME.items()]
    shown = cli(*words)
    assert shown.status == 0, shown.err
    written = cli(*words, "--out", tmp_path / "out")
    assert written.out == f"{shown.out}report: {tmp_path / 'out' / 'report.md'}\n"
    assert "clinic: all 30 images" in shown.out
    assert "note: clinic has no test split of its own, so the test takes all 30 images" in shown.err
    assert shown.out.startswith("tip-adapter is ")
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert "exists already" in refused(*words, "--out", tmp_path / "out")
    again = cli(*words, "--out", tmp_path / "out", "--overwrite", "--json")
    content = json.loads(again.out)
    notes = content.pop("notes")
    in_file = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert len(in_file.pop("predictions")) == 30
    assert {key: value for key, value in content.items() if key in in_file} == in_file
    assert content["accuracy"] == in_file["rows"]["tip-adapter"]["accuracy"]
    assert [f"note: {note}" for note in notes] == again.err.splitlines()
