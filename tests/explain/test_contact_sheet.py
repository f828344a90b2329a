"""Maps of several methods side by side; the others are trained from the request of the run."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import biomedcoop as bc
from biomedcoop.classifier import Classifier
from biomedcoop.errors import UserError
from biomedcoop.explain.contact_sheet import MOST_IMAGES, contact_sheet, retrained


@pytest.fixture(scope="module")
def run(discs: Path, parity: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("run") / "run"
    bc.train(discs, place, method="linear-probe", backbone=parity / "model", shots=4, n_bootstrap=40, progress=False)
    return place


@pytest.fixture(scope="module")
def classifier(run: Path, parity: Path) -> Classifier:
    return bc.load(run, parity / "model")


def test_others_are_trained_as_the_run_would(run: Path, classifier: Classifier, discs: Path, parity: Path) -> None:
    found = retrained(run, classifier, ["tip-adapter", "linear-probe", "zero-shot"])
    assert list(found) == ["tip-adapter", "linear-probe", "zero-shot"]
    assert found["linear-probe"] is classifier
    own = bc.fit(bc.load_dataset(discs), "tip-adapter", parity / "model", shots=4, progress=False)
    images = list(np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), dtype=np.uint8))
    np.testing.assert_array_equal(found["tip-adapter"].predict_proba(images), own.predict_proba(images))


def test_a_row_explains_the_answer_of_the_run(run: Path, classifier: Classifier, discs: Path) -> None:
    files = sorted((discs / "test").rglob("*.png"))[::10]
    sheet = contact_sheet(
        retrained(run, classifier, ["zero-shot", "tip-adapter"]), files, map="grad-cam", chooser=classifier
    )
    assert [[found.method for found in row] for row in sheet.rows] == 3 * [["zero-shot", "tip-adapter"]]
    assert [row[0].class_name for row in sheet.rows] == [row[1].class_name for row in sheet.rows]
    assert [row[0].class_name for row in sheet.rows] == classifier.predict(files)
    figure = sheet.figure()
    titles = [axes.get_title() for axes in figure.axes]
    for row in sheet.rows:
        for found in row:
            assert any(
                title.startswith(found.method) and title.endswith(f"probability {found.probability:.2f}")
                for title in titles
            )
    assert sheet._repr_html_().count("<img") == 6


def test_what_cannot_be_trained_is_refused(run: Path, classifier: Classifier, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"model has no run\.json, from which other methods could be trained; give the run"
    ):
        retrained(run / "model", classifier, ["zero-shot"])
    moved = shutil.copytree(run, tmp_path / "moved")
    request = (moved / "run.json").read_text()
    (moved / "run.json").write_text(request.replace("scans", "gone"))
    with pytest.raises(
        UserError, match=r"the data of .*moved cannot be read, so no other method can be trained: .*gone"
    ):
        retrained(moved, classifier, ["zero-shot"])
    with pytest.raises(UserError, match="did you mean coop"):
        retrained(run, classifier, ["coopp"])
    with pytest.raises(UserError, match="no method is named"):
        retrained(run, classifier, [])
    with pytest.raises(UserError, match=f"at most {MOST_IMAGES} images, not 25"):
        contact_sheet({"linear-probe": classifier}, 25 * [np.zeros((8, 8), dtype=np.uint8)])


def test_other_classes_are_refused(run: Path, classifier: Classifier, discs: Path, tmp_path: Path) -> None:
    other = shutil.copytree(discs, tmp_path / "other")
    for split in ("train", "test"):
        shutil.rmtree(other / split / "red_stone")
    moved = shutil.copytree(run, tmp_path / "moved")
    (moved / "run.json").write_text((moved / "run.json").read_text().replace(str(discs), str(other)))
    with pytest.raises(UserError, match="now have the classes blue cyst, green tumor, but its model has"):
        retrained(moved, classifier, ["zero-shot"])
