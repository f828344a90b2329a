from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from biomedcoop.data.readers.folder import read_folder
from biomedcoop.data.readers.load import load_dataset
from biomedcoop.data.readers.walk import ZIP_RULE
from biomedcoop.errors import UserError

Draw = Callable[[Path], Path]
NFC, NFD = (unicodedata.normalize(form, "bénin") for form in ("NFC", "NFD"))


def test_class_folders(class_folders: Path) -> None:
    data = load_dataset(class_folders)
    assert data.name == "scans"
    assert data.class_names == ("cyst", "normal scan")
    assert data.counts("train").tolist() == [10, 10]
    assert data.keys[0] == "cyst/0.png"
    assert all(path == class_folders / key for path, key in zip(data.images, data.keys, strict=True))


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
    (class_folders / "cyst" / "scan.xyz").write_bytes(b"x")
    data = load_dataset(class_folders)
    assert len(data) == 21
    assert "cyst/patient 7/left/deep.png" in data.keys
    assert data.class_names == ("cyst", "normal scan")
    assert "2 files in scans are not images and were ignored (.txt: 1, .xyz: 1)" in " ".join(data.notes)
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
    (tmp_path / "scans.zip").touch()
    assert "no image in it outside scans.zip; unpack that archive" in message(tmp_path)
    (tmp_path / "cyst").mkdir()
    (tmp_path / "cyst" / "more.zip").touch()
    (tmp_path / "scans.zip").unlink()
    assert f"no image in it (.zip: 1); {ZIP_RULE}" in message(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.xyz").write_bytes(b"x")
    assert "no image in it (.xyz: 1); convert them" in message(tmp_path)


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
    (tmp_path / "scans" / "c" / "scan.xyz").touch()
    with pytest.raises(UserError, match="c: this class folder holds no image"):
        load_dataset(tmp_path / "scans")


# -- names of classes


def drawn(folder: Path, draw: Draw, *places: str) -> Path:
    """Images at ``<place>/0.png`` and ``<place>/1.png``."""
    for place in places:
        for number in range(2):
            draw(folder / place / f"{number}.png")
    return folder


@pytest.mark.parametrize("other", [NFD, f"{NFC}\u200b", "bé\u00adnin", f"\ufeff{NFC}"])
def test_two_folders_of_one_visible_name(tmp_path: Path, draw: Draw, other: str) -> None:
    said = message(drawn(tmp_path, draw, NFC, other, "malin"))
    assert "are the same; rename one (they differ only in " in said
    assert ascii(other) in said


def test_a_class_in_two_unicode_forms_is_one_class(tmp_path: Path, draw: Draw) -> None:
    data = load_dataset(drawn(tmp_path / "d", draw, f"train/{NFC}", "train/malin", f"test/{NFD}", "test/malin"))
    assert data.class_names == (NFC, "malin")
    assert data.counts("test").tolist() == [2, 2]
    assert data.notes == ()
    assert all(path.is_file() for path in data.images)


@pytest.mark.parametrize(("other", "words"), [("non_TUMOR", "only in case"), ("Non-Tumor", "only in case, hyphens")])
def test_a_class_spelled_otherwise_in_test_is_one_class_and_said(
    tmp_path: Path, draw: Draw, other: str, words: str
) -> None:
    data = load_dataset(drawn(tmp_path / "d", draw, "train/non_tumor", "train/tumor", f"test/{other}", "test/tumor"))
    assert data.class_names == ("non tumor", "tumor")
    assert data.counts("test").tolist() == [2, 2]
    (note,) = data.notes
    assert f"the folders train/non_tumor and test/{other} are read as one class (they differ {words}" in note


def test_a_sign_makes_two_classes(tmp_path: Path, draw: Draw) -> None:
    assert load_dataset(drawn(tmp_path, draw, "HER2", "HER2-", "HER2+")).class_names == ("HER2", "HER2+", "HER2-")


def test_a_class_folder_whose_name_shows_nothing(tmp_path: Path, draw: Draw) -> None:
    assert r"a class name is empty ('\u200b' has no visible character)" in message(drawn(tmp_path, draw, "\u200b", "a"))


@pytest.mark.parametrize("place", [b"b\xe4/0.png", b"a/b\xe4.png"])
def test_names_that_are_no_utf8(tmp_path: Path, draw: Draw, place: bytes) -> None:
    drawn(tmp_path, draw, "a", "c")
    draw(tmp_path / os.fsdecode(place))
    assert r"b\udce4" in message(tmp_path)


def test_a_dataset_whose_name_is_no_utf8(tmp_path: Path, draw: Draw) -> None:
    said = message(drawn(tmp_path / os.fsdecode(b"b\xe4"), draw, "a", "c"))
    assert r"b\udce4': the name is not UTF-8, so no table or report can hold it; rename it" in said


# -- folders above the classes


@pytest.mark.parametrize(
    "names",
    [
        ("train_images", "val_images", "test_images"),
        ("Train Set", "Dev", "Test Set"),
        ("imagesTr", "imagesVal", "imagesTs"),
    ],
)
def test_split_folders_under_their_usual_names(tmp_path: Path, draw: Draw, names: tuple[str, str, str]) -> None:
    data = load_dataset(drawn(tmp_path, draw, *(f"{split}/{name}" for split in names for name in ("a", "b"))))
    assert [data.counts(split).tolist() for split in ("train", "val", "test")] == [[2, 2]] * 3


@pytest.mark.parametrize("names", [("TR", "MR", "TS"), ("Test", "Testis"), ("Dev", "Control")])
def test_classes_that_could_be_read_as_splits(tmp_path: Path, draw: Draw, names: tuple[str, ...]) -> None:
    assert load_dataset(drawn(tmp_path, draw, *names)).class_names == tuple(sorted(names))


def test_a_test_folder_alone_beside_a_folder_of_papers(tmp_path: Path, draw: Draw) -> None:
    (tmp_path / "docs").mkdir()
    data = load_dataset(drawn(tmp_path, draw, "test/a", "test/b"), for_training=False)
    assert (data.class_names, set(data.splits.tolist())) == (("a", "b"), {"test"})


@pytest.mark.parametrize(
    "name", ["@eaDir", "$RECYCLE.BIN", "#recycle", "System Volume Information", "lost+found", ".Trash-1000"]
)
def test_folders_of_systems_are_no_classes(class_folders: Path, draw: Draw, name: str) -> None:
    draw(class_folders / name / "1.png")
    draw(class_folders / "cyst" / name / "1.png")
    data = load_dataset(class_folders)
    assert (data.class_names, len(data)) == (("cyst", "normal scan"), 20)


def test_images_and_masks_are_no_classes(tmp_path: Path, draw: Draw) -> None:
    data = load_dataset(drawn(tmp_path, draw, "images/a", "images/b", "masks/a", "masks/b"))
    assert data.class_names == ("a", "b")
    assert "images/a/0.png" in data.keys
    assert "the folder masks holds masks and was left out (files: 4)" in data.notes


def test_images_and_labels_below_splits_and_classes(tmp_path: Path, draw: Draw) -> None:
    splits = drawn(tmp_path / "splits", draw, "images/train/a", "images/train/b", "images/test/b", "labels/train/a")
    assert load_dataset(splits).counts("train").tolist() == [2, 2]
    each = drawn(tmp_path / "each", draw, "train/images/a", "train/images/b", "train/masks/a", "test/images/a")
    assert load_dataset(each).class_names == ("a", "b")
    below = drawn(tmp_path / "below", draw, "a/images", "a/masks", "b/images", "b/masks")
    data = load_dataset(below)
    assert (data.class_names, len(data)) == (("a", "b"), 4)
    assert len([note for note in data.notes if "holds masks and was left out" in note]) == 2


def test_images_and_masks_without_classes(tmp_path: Path, draw: Draw) -> None:
    assert "its 2 images are in no class folder" in message(drawn(tmp_path, draw, "images", "masks"))


def test_masks_beside_the_images_are_left_out(class_folders: Path, draw: Draw) -> None:
    for number in range(10):
        draw(class_folders / "cyst" / f"{number}_mask.png")
    draw(class_folders / "cyst" / "0_mask_1.png")
    draw(class_folders / "cyst" / "alone_mask.png")  # no mask of an image that is there
    data = load_dataset(class_folders)
    assert len(data) == 21
    assert "11 masks beside the images in scans were left out" in data.notes


@pytest.mark.parametrize(
    ("uppers", "lowers"), [("8863 8864 8867", "0 1"), ("fold_0 fold_1", "all hem"), ("A B", "benign malignant")]
)
@pytest.mark.parametrize("for_training", [True, False])
def test_classes_one_level_down_are_refused(
    tmp_path: Path, draw: Draw, uppers: str, lowers: str, for_training: bool
) -> None:
    drawn(tmp_path, draw, *(f"{upper}/{lower}" for upper in uppers.split() for lower in lowers.split()))
    names = ", ".join(lowers.split())
    with pytest.raises(UserError, match=rf"or the lower ones \({names}\), which are the same in each\?"):
        load_dataset(tmp_path, for_training=for_training)


def test_classes_one_level_down_below_splits(tmp_path: Path, draw: Draw) -> None:
    drawn(tmp_path, draw, *(f"{place}/{name}" for place in ("train/p1", "train/p2", "test/p3") for name in ("a", "b")))
    assert "are the classes the upper folders (p1, p2, p3) or the lower ones (a, b)" in message(tmp_path)


# -- links


def test_a_link_that_leads_back_is_no_class(class_folders: Path) -> None:
    (class_folders / "all").symlink_to(class_folders)
    (class_folders / "cyst" / "up").symlink_to("..")
    assert load_dataset(class_folders).class_names == ("cyst", "normal scan")
    assert len(load_dataset(class_folders)) == 20


def test_a_folder_that_stands_for_two_classes(class_folders: Path) -> None:
    (class_folders / "kyste").symlink_to("cyst")
    assert "stand for different classes or splits; remove the link" in message(class_folders)


def test_a_linked_class_folder(class_folders: Path, tmp_path: Path) -> None:
    (class_folders / "cyst").rename(tmp_path / "elsewhere")
    (class_folders / "cyst").symlink_to(tmp_path / "elsewhere")
    assert len(load_dataset(class_folders)) == 20


@pytest.mark.parametrize("place", ["cyst/10.png", "tumor"])
def test_a_link_that_leads_nowhere(class_folders: Path, place: str) -> None:
    (class_folders / place).symlink_to("/none/such")
    assert f"{place}: a link that leads nowhere; correct or remove it" in message(class_folders)


# -- data that are only tested on


def test_one_class_is_enough_for_testing(tmp_path: Path, draw: Draw) -> None:
    (tmp_path / "ext" / "benign").mkdir(parents=True)
    data = load_dataset(drawn(tmp_path / "ext", draw, "malignant"), for_training=False)
    assert (data.class_names, len(data)) == (("malignant",), 2)


def test_images_without_class_folder_cannot_be_tested_on_either(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "1.png")
    with pytest.raises(UserError, match="its 1 images are in no class folder; put them into one folder per class"):
        load_dataset(tmp_path, for_training=False)


def test_masks_beside_class_folders_are_no_class(tmp_path: Path, draw: Draw) -> None:
    for name in ("cyst", "stone"):
        for number in range(3):
            draw(tmp_path / "flat" / name / f"{name}{number}.png")
            draw(tmp_path / "flat" / "masks" / f"{name}{number}.png")
            draw(tmp_path / "deep" / name / f"{name}{number}.png")
            draw(tmp_path / "deep" / "ground_truth" / name / f"{name}{number}.png")
    for folder in ("flat", "deep"):
        data = read_folder(tmp_path / folder)
        assert (data.class_names, len(data)) == (("cyst", "stone"), 6)
        assert any("holds masks and was left out (files: 6)" in note for note in data.notes)
    for name in ("mask", "no_mask"):  # people with and without one
        draw(tmp_path / "faces" / name / "0001.png")
    assert read_folder(tmp_path / "faces").class_names == ("mask", "no mask")


def test_a_mask_in_brackets(tmp_path: Path, draw: Draw) -> None:
    for name in ("cyst", "stone"):
        draw(tmp_path / name / "1.png")
        draw(tmp_path / name / "1 (mask).png")
    assert len(read_folder(tmp_path)) == 2


def test_a_split_without_class_folders_and_patients_below_classes_are_said(tmp_path: Path, draw: Draw) -> None:
    for name in ("cyst", "stone"):
        for patient in ("P1", "P2" if name == "cyst" else "P3"):
            draw(tmp_path / name / patient / "slice.png")
    draw(tmp_path / "test" / "1.png")
    notes = " ".join(read_folder(tmp_path).notes)
    assert "the folder test is read as a class; if it is a split, put class folders into it" in notes
    assert "folders below the class folders (P1, P2, …: 3) are not used; if they are patients" in notes
    for name in ("cyst", "stone"):
        for side in ("left", "right"):
            draw(tmp_path / "sides" / name / side / "1.png")
    assert read_folder(tmp_path / "sides").notes == ()
