"""Which images to label next: what is left out, groups, reasons, and the rule itself."""

from __future__ import annotations

import csv
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone
from biomedcoop.classifier import Classifier
from biomedcoop.classifier.suggest import choose
from biomedcoop.errors import Note, UserError
from dicom_files import series


def draw(path: Path, shade: int, seed: int) -> Path:
    noise = np.random.default_rng(seed).integers(0, 60, (32, 32))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((noise + shade).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("suggest")
    for k in range(4):
        draw(root / "scans" / "dark" / f"{k}.png", 10, k)
        draw(root / "scans" / "light" / f"{k}.png", 180, 10 + k)
    for k in range(8):
        draw(root / "pool" / f"{k}.png", 10 + 24 * k, 30 + k)
    return root


@pytest.fixture(scope="module")
def classifier(folder: Path, tiny: Backbone) -> Classifier:
    data = bc.load_dataset(folder / "scans")
    return bc.fit(data, "linear-probe", tiny, shots="all")


def test_suggestions(folder: Path, classifier: Classifier) -> None:
    """Each image at most once, in an order that repeats, with the classes and probabilities of `predict`."""
    found = bc.suggest(classifier, folder / "pool", 5)
    assert [one.rank for one in found] == [1, 2, 3, 4, 5]
    assert len({one.path for one in found}) == 5
    assert bc.suggest(classifier, [folder / "pool"], 5) == found
    p = classifier.predict_proba([one.path for one in found])
    for one, row in zip(found, p, strict=True):
        assert one.p_prediction == pytest.approx(row.max(), abs=1e-3)
        assert one.prediction == classifier.class_names[row.argmax()]
        assert {one.prediction, one.second} == {"dark", "light"}
        assert one.group == ""


def test_reasons_are_true(folder: Path, classifier: Classifier) -> None:
    """Each names its place by doubt among all images, and what it is most like: a class, or a suggestion before it."""
    every = bc.suggest(classifier, folder / "pool", 8)
    gaps = sorted(one.p_prediction - one.p_second for one in every)
    for one in every:
        place = int(re.search(r"place (\d) of 8 by doubt", one.reason).group(1))
        assert gaps[place - 1] == pytest.approx(one.p_prediction - one.p_second, abs=2e-4)
        assert one.reason.startswith(f"{one.prediction} {100 * one.p_prediction:.0f} %, {one.second} ")
        assert "of the 8 most doubtful, least like training images and suggestions before: most like " in one.reason
        near = re.search(r"most like (?:the training images of “(?:dark|light)”|suggestion (\d)) \(cosine", one.reason)
        assert near is not None
        assert near.group(1) is None or int(near.group(1)) < one.rank


def test_labelled_and_damaged_images_are_left_out(folder: Path, classifier: Classifier, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    everything = [folder / "scans", folder / "pool", tmp_path]
    with pytest.warns(Note) as notes:
        found = bc.suggest(classifier, everything, 20)
    said = " ".join(str(note.message) for note in notes)
    assert "of 17 images trained this classifier and are left out" in said
    assert "1 of 17 images cannot be read" in said
    learned = len(classifier.facts["training_images"])
    assert f"{16 - learned} images are suggested instead of 20" in said
    assert len(found) == 16 - learned


def test_groups(folder: Path, classifier: Classifier) -> None:
    """No two images of a patient, and none of a patient that was learned from."""
    rows = [(folder / "pool" / f"{k}.png", f"p{k // 2}") for k in range(8)]
    first = bc.load_dataset(folder / "scans").part("train").images[0]
    rows.append((first, "p3"))
    table = folder / "pool.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "patient_id"), *rows])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = bc.suggest(classifier, table, 8)
    assert sorted(one.group for one in found) == ["p0", "p1", "p2"]
    assert any("2 of 9 images are of groups that trained it" in str(note.message) for note in caught)


def test_bad_input(folder: Path, classifier: Classifier, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no image"):
        bc.suggest(classifier, tmp_path)
    with pytest.raises(UserError, match="number=0 must be a whole number of at least 1"):
        bc.suggest(classifier, folder / "pool", 0)
    with pytest.raises(UserError, match="does not exist"):
        bc.suggest(classifier, tmp_path / "nothing")
    learned = list(bc.load_dataset(folder / "scans").part("train").images)
    with pytest.raises(UserError, match=r"no image is left to suggest: .* trained this classifier"):
        bc.suggest(classifier, learned)


def test_the_rule_takes_one_image_of_each_group() -> None:
    g = np.random.default_rng(1)
    p, f = g.dirichlet([1, 1, 1], 30), g.standard_normal((30, 8))
    groups = np.array([f"g{k % 4}" for k in range(30)])
    order = choose(p, f, f[:0], 10, groups)
    assert len(order) == len(set(groups[order])) == 4
    copies = choose(p, np.ones((30, 8)), f[:0], 3, np.arange(30).astype(str))
    assert len(set(copies.tolist())) == 3


def test_the_rule_takes_undecided_images_far_from_known_and_chosen_ones() -> None:
    p = np.array([[0.5, 0.5], [0.52, 0.48], [0.51, 0.49], [0.53, 0.47], [0.54, 0.46], [0.99, 0.01]])
    f = np.array([[1, 0.1, 0], [1, 0, 0.1], [0, 1, 0], [0, 1, 0.1], [0.1, 0, 1], [0, 0, -1]], dtype=float)
    known = np.array([[0, 1.0, 0]])
    groups = np.arange(6).astype(str)
    # image 5 is sure, so it is no candidate for one image; images 0 and 1 are about as far as image 4 from the known one
    assert choose(p, f, known, 1, groups).tolist() in ([1], [4])
    assert set(choose(p, f, known, 3, groups).tolist()) >= {4, 5}


def test_patients_that_dicom_files_name_are_groups(tmp_path: Path, classifier: Classifier) -> None:
    """The groups are those of a dataset of the same files, and a column of a table goes first."""
    for number in range(3):
        series(tmp_path / "pool" / "a" / f"{number}a", f"PLANTED-{number // 2}", 2, 200 * number)
        series(tmp_path / "pool" / "b" / f"{number}b", f"PLANTED-{2 + number // 2}", 2, 200 * number)
    data = bc.load_dataset(tmp_path / "pool", for_training=False)
    assert data.groups is not None
    with pytest.warns(Note, match="4 images are suggested instead of 5"):
        found = bc.suggest(classifier, tmp_path / "pool", 5)
    assert {one.group for one in found} == set(data.groups)
    of_file = {str(tmp_path / "pool" / key): group for key, group in zip(data.keys, data.groups, strict=True)}
    assert all(one.group == of_file[one.path] for one in found)
    table = tmp_path / "pool.csv"
    files = sorted((tmp_path / "pool").rglob("IM*"))
    table.write_text("path,group\n" + "".join(f"{file},lesion {i}\n" for i, file in enumerate(files)))
    assert all(one.group.startswith("lesion ") for one in bc.suggest(classifier, table, 5))
