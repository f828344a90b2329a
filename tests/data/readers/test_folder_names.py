from __future__ import annotations

import pytest

from biomedcoop.data.readers.folder_names import (
    is_image_folder,
    is_mask_folder,
    is_visible,
    mask_folders,
    masks_of,
    split_word,
)


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("train", "train|TRAIN|Training|trn|Train Set|trainset|train_images|imagesTr|Training-Data| train "),
        ("val", "val|Valid|validation|dev|validation_set|val_images|imagesVal"),
        ("test", "test|Testing|test set|TestData|test_images|imagesTs|images_test"),
    ],
)
def test_splits_under_their_usual_names(split: str, words: str) -> None:
    assert {word: split_word(word) for word in words.split("|")} == dict.fromkeys(words.split("|"), split)


@pytest.mark.parametrize(
    "word",
    ["tr", "TS", "holdout", "images", "set", "", "train test", "pretest", "stress test", "train_masks", "contest", "7"],
)
def test_words_that_name_no_split(word: str) -> None:
    assert split_word(word) is None


@pytest.mark.parametrize(
    "names",
    [
        "@eaDir|#recycle|#snapshot|@Recycle|.@__thumb",
        "$RECYCLE.BIN|$Recycle.Bin|RECYCLER|System Volume Information|Thumbs.db|desktop.ini",
        "__MACOSX|.DS_Store|._a.png|.Trashes",
        "lost+found|.Trash-1000|.ipynb_checkpoints",
    ],
)
def test_what_systems_make_for_themselves(names: str) -> None:
    assert not any(map(is_visible, names.split("|")))


@pytest.mark.parametrize("name", ["recycle", "found", "benign", "@home", "#1", "$5", "thumbs", "lost"])
def test_what_users_make(name: str) -> None:
    assert is_visible(name)


@pytest.mark.parametrize(
    "name", ["masks", "Mask", "labelsTr", "train_masks", "Ground Truth", "GroundTruth", "GT", "annotations", "seg"]
)
def test_folders_that_may_hold_masks(name: str) -> None:
    assert is_mask_folder(name)
    assert not is_image_folder(name)


@pytest.mark.parametrize("name", ["no_mask", "with mask", "benign", "images", "train", "segmented neutrophil", "", "7"])
def test_folders_that_hold_no_masks_by_their_name(name: str) -> None:
    assert not is_mask_folder(name)


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images", "masks|infection masks|lung masks"),
        ("imagesTr|imagesTs", "labelsTr"),
        ("train|val|test", "masks"),
        ("train_images|test_images", "train_masks|test_masks"),
        ("ISIC_Training_Data", "ISIC_Training_GroundTruth"),
        ("frames of polyps", "masks of polyps"),
    ],
)
def test_folders_of_masks_beside_those_of_images(images: str, masks: str) -> None:
    assert mask_folders([*images.split("|"), *masks.split("|")]) == masks.split("|")


@pytest.mark.parametrize(
    "names", ["mask|no_mask", "with_mask|without_mask", "seg|band", "masks", "benign|masked", "Label|Control"]
)
def test_classes_that_sound_like_masks(names: str) -> None:
    assert mask_folders(names.split("|")) == []


def test_folders_that_say_no_more_than_images() -> None:
    assert all(map(is_image_folder, ["images", "Image", "imgs", "JPEGImages", "imagesTr", "original images"]))
    assert not any(map(is_image_folder, ["benign", "images of cysts", "train", ""]))


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("benign (1)", "benign (1)_mask"),
        ("benign (4)", "benign (4)_mask_1"),
        ("ISIC_0000000", "ISIC_0000000_segmentation"),
        ("a", "A-Seg"),
        ("a", "a_gt2"),
        ("a", "a ground truth"),
        ("a", "mask_a"),
        ("case1_image", "case1_label"),
    ],
)
def test_a_mask_is_named_after_its_image(image: str, mask: str) -> None:
    assert masks_of([image, mask]) == {mask}
    assert masks_of([mask]) == set()  # an image of that name and nothing beside it
    assert masks_of(["other", mask]) == set()


def test_a_mask_of_a_mask_is_none() -> None:
    assert masks_of(["mask_1", "mask_2", "mask_3"]) == set()
    assert masks_of(["1", "mask_1", "2"]) == {"mask_1"}
