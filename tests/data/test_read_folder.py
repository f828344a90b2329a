from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from biomedcoop.data.readers import load_dataset
from biomedcoop.errors import UserError

Draw = Callable[[Path], Path]


def test_class_folders(class_folders: Path) -> None:
    data = load_dataset(class_folders)
    assert data.name == "scans"
    assert data.class_names == ("cyst", "normal scan")
    assert data.counts("train").tolist() == [7, 7]
    assert data.counts("test").tolist() == [3, 3]
    assert data.keys[0] == "cyst/0.png"
    assert all(path == class_folders / key for path, key in zip(data.images, data.keys, strict=True))
    assert "6 of 20 training images were drawn as test (30% of each class, seed 0)" in data.notes[0]


def test_split_folders_in_any_spelling(tmp_path: Path, draw: Draw) -> None:
    for split, count in (("Train", 4), ("VALID", 2), ("test", 3)):
        for name in ("a", "b"):
            for number in range(count):
                draw(tmp_path / "d" / split / name / f"{split}{number}.jpg")
    (tmp_path / "d" / "docs").mkdir()
    (tmp_path / "d" / "docs" / "readme.txt").write_text("no image")
    data = load_dataset(tmp_path / "d")
    assert [data.counts(split).tolist() for split in ("train", "val", "test")] == [[4, 4], [2, 2], [3, 3]]
    assert data.notes == ()
    assert "Train/a/Train0.jpg" in data.keys


def test_classes_may_be_called_like_splits(tmp_path: Path, draw: Draw) -> None:
    for name in ("Test", "Control"):
        for number in range(4):
            draw(tmp_path / "d" / name / f"{number}.png")
    assert load_dataset(tmp_path / "d").class_names == ("Control", "Test")


def test_nested_folders_hidden_files_and_litter(class_folders: Path, draw: Draw) -> None:
    draw(class_folders / "cyst" / "patient 7" / "left" / "deep.PNG".lower())
    draw(class_folders / "cyst" / ".hidden.png")
    draw(class_folders / ".cache" / "x.png")
    draw(class_folders / "__MACOSX" / "x.png")
    draw(class_folders / "loose.png")
    (class_folders / "cyst" / "Thumbs.db").write_bytes(b"x")
    (class_folders / "cyst" / "notes.txt").write_text("x")
    (class_folders / "cyst" / "scan.dcm").write_bytes(b"x")
    data = load_dataset(class_folders)
    assert len(data) == 21
    assert "cyst/patient 7/left/deep.png" in data.keys
    assert data.class_names == ("cyst", "normal scan")
    assert "2 files in scans are not images and were ignored (.txt: 1, .dcm: 1)" in " ".join(data.notes)
    assert "1 images in scans lie outside the class folders" in " ".join(data.notes)


def test_a_linked_folder_that_leads_back_does_not_loop(class_folders: Path) -> None:
    (class_folders / "cyst" / "again").symlink_to(class_folders / "cyst")
    assert len(load_dataset(class_folders)) == 20


def test_a_benchmark_dataset_gets_its_published_label_order(tmp_path: Path, draw: Draw) -> None:
    published = ("glioma tumor", "meningioma tumor", "pituitary tumor", "normal brain")
    for name in published:
        for number in range(3):
            draw(tmp_path / "btmri" / name.replace(" ", "_") / f"{number}.png")
    data = load_dataset(tmp_path / "btmri")
    assert data.class_names == published
    assert all(
        key.startswith(published[label].replace(" ", "_")) for key, label in zip(data.keys, data.labels, strict=True)
    )
    (tmp_path / "btmri").rename(tmp_path / "other")
    assert load_dataset(tmp_path / "other").class_names == tuple(sorted(published))


def message(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_dataset(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_empty_folder(tmp_path: Path) -> None:
    assert "no image in it; expected one folder per class" in message(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.dcm").write_bytes(b"x")
    assert "1 files are .dcm" in message(tmp_path)


def test_images_without_class_folder(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "1.png")
    assert "its 1 images are in no class folder" in message(tmp_path)


def test_one_class_only(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "wrapper" / "cyst" / "1.png")
    assert "one class ('wrapper', e.g. wrapper/cyst/1.png)" in message(tmp_path)


def test_a_class_without_training_image(tmp_path: Path, draw: Draw) -> None:
    for path in ("train/a/1.png", "train/b/1.png", "test/a/2.png", "test/c/2.png"):
        draw(tmp_path / path)
    assert "class 'c' has no image in train" in message(tmp_path)


def test_test_without_train(tmp_path: Path, draw: Draw) -> None:
    for path in ("test/a/1.png", "test/b/1.png", "val/a/1.png", "val/b/1.png"):
        draw(tmp_path / path)
    assert "there are val and test images but none to train on" in message(tmp_path)


@pytest.mark.parametrize("other", ["Normal_Scan", "normal scan", "NORMAL SCAN"])
def test_class_names_that_are_the_same(class_folders: Path, draw: Draw, other: str) -> None:
    draw(class_folders / other / "1.png")
    assert "are the same; rename one" in message(class_folders)


def test_unknown_split_folder(tmp_path: Path, draw: Draw) -> None:
    for path in ("train/a/1.png", "train/b/1.png", "holdout/a/1.png"):
        draw(tmp_path / path)
    assert "unknown split 'holdout'; use train, val or test" in message(tmp_path)


def test_two_folders_for_one_split(tmp_path: Path, draw: Draw) -> None:
    for path in ("train/a/1.png", "train/b/1.png", "val/a/1.png", "validation/a/1.png"):
        draw(tmp_path / path)
    assert "both mean val" in message(tmp_path)


def test_a_class_folder_without_an_image_is_said(tmp_path: Path, draw: Draw) -> None:
    for name in ("a", "b"):
        draw(tmp_path / "scans" / name / "1.png")
        draw(tmp_path / "scans" / name / "2.png")
    (tmp_path / "scans" / "c").mkdir()
    (tmp_path / "scans" / "c" / "scan.dcm").touch()
    with pytest.raises(UserError, match="c: this class folder holds no image"):
        load_dataset(tmp_path / "scans")
