"""Which images of a dataset are evaluated, and that it is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageOps

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone
from biomedcoop.evaluation.images import images_to_evaluate


@pytest.fixture(scope="module")
def without_splits(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 102 images of the discs in class folders: just enough to draw a test split."""
    folder = shutil.copytree(discs / "train", tmp_path_factory.mktemp("external") / "clinic")
    for path in (discs / "test").rglob("*.png"):
        shutil.copy(path, folder / path.parent.name / f"test{path.name}")
    return folder


@pytest.fixture(scope="module")
def clf(without_splits: Path, tiny: Backbone) -> bc.Classifier:
    return bc.fit(bc.load_dataset(without_splits), backbone=tiny, method="tip-adapter", shots=4)


def test_a_test_split_of_the_source_is_taken(discs: Path, tiny: Backbone) -> None:
    data = bc.load_dataset(discs)
    taken = images_to_evaluate(bc.fit(data, backbone=tiny, method="tip-adapter", shots=4), data)
    assert (taken.split, len(taken.data), taken.notes, taken.leaks) == ("test", 30, (), ())


def test_all_images_of_another_source_are_taken(clf: bc.Classifier, without_splits: Path, tmp_path: Path) -> None:
    shutil.copytree(without_splits, tmp_path / "ward")
    for path in (tmp_path / "ward").rglob("*.png"):
        ImageOps.flip(Image.open(path)).save(path)
    other = bc.load_dataset(tmp_path / "ward")
    assert other.test_drawn
    taken = images_to_evaluate(clf, other)
    assert (taken.split, len(taken.data)) == ("all", 102)
    assert taken.notes == ("ward has no test split of its own, so the test takes all 102 images",)
    assert len(images_to_evaluate(clf, other, "test").data) == 30


def test_without_enough_images_for_a_test_split_the_way_out_is_said(
    discs: Path, tiny: Backbone, tmp_path: Path
) -> None:
    few = bc.load_dataset(shutil.copytree(discs / "train", tmp_path / "few"))
    clf = bc.fit(few, backbone=tiny, method="tip-adapter", shots=16)
    taken = images_to_evaluate(clf, few)
    assert (taken.split, len(taken.data), len(taken.leaks)) == ("all", 72, 1)
    assert taken.notes == (
        "few has no test split of its own, so the test takes all 72 images; bc.train (the command 'train') tests on images that "
        "were not trained on, by cross-validation",
    )
    with pytest.raises(
        bc.UserError, match=r"few has no images in its test split; choose another one .*'train', which cross-valid"
    ):
        images_to_evaluate(clf, few, "test")


def test_the_drawn_test_images_are_taken_if_the_others_trained_the_classifier(
    clf: bc.Classifier, without_splits: Path, tiny: Backbone
) -> None:
    data = bc.load_dataset(without_splits)
    taken = images_to_evaluate(clf, data)
    assert (taken.split, len(taken.data), taken.leaks) == ("test", 30, ())
    (note,) = taken.notes
    assert "the test takes the 30 of 102 images that were drawn for testing" in note
    zero_shot = bc.fit(data, backbone=tiny, method="zero-shot")  # the same images, so that the two can be compared
    assert images_to_evaluate(zero_shot, data).data.keys == taken.data.keys


def test_training_images_among_all_are_said_without_a_name_in_the_text(
    clf: bc.Classifier, without_splits: Path
) -> None:
    (leak,) = images_to_evaluate(clf, bc.load_dataset(without_splits), "all").leaks
    assert leak.text.startswith("12 of the 102 evaluated images were used to train this classifier")
    assert ".png" not in leak.text
    assert leak.example.endswith(".png")
