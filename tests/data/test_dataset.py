"""A dataset made by hand: what is taken, what is refused, and what selecting from it costs."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from biomedcoop import Dataset, UserError
from biomedcoop.data.images.decoders.base import DecodeOptions
from biomedcoop.data.images.sources import ImageInFile
from biomedcoop.data.images.stacks import Reading
from dicom_files import ct, ramp, write

N = 6


def make(**given: Any) -> Dataset:
    plain: dict[str, Any] = {
        "name": "mine",
        "class_names": ("benign", "malignant", "normal"),
        "images": np.arange(N * 64, dtype=np.uint16).astype(np.uint8).reshape(N, 8, 8),
        "keys": [f"k{i}" for i in range(N)],
        "labels": np.arange(N) % 3,
        "splits": ["train"] * 4 + ["test"] * 2,
    }
    return Dataset(**(plain | given))


def test_lists_text_and_arrays_are_taken() -> None:
    data = make(
        class_names=["benign", "malignant_tumor", "nor\u00admal"],
        images=["a.png", Path("b.png"), "c.png", "d.png", "e.png", "f.png"],
        keys=np.array([f"k{i}" for i in range(N)]),
        labels=[0, 1, 2, 0, 1, 2],
        groups=["P1", None, " P2 ", float("nan"), "", 7],
        root="folder",
        notes=["one"],
    )
    assert data.class_names == ("benign", "malignant tumor", "normal")  # the form in which readers keep names
    assert data.images == [Path(f"{name}.png") for name in "abcdef"]
    assert data.keys == ("k0", "k1", "k2", "k3", "k4", "k5")
    assert data.labels.dtype == np.int64
    assert data.indices("test").tolist() == [4, 5]
    assert data.groups is not None
    assert data.groups.tolist() == ["P1", "", "P2", "", "", "7"]
    assert (data.root, data.notes) == (Path("folder"), ("one",))
    assert make(labels=torch.arange(N) % 3).counts("train").tolist() == [2, 1, 1]
    assert make(images=np.array([f"{i}.png" for i in range(N)])).images[5] == Path("5.png")
    assert make(images=[np.zeros((4, 4), np.uint8)] * N).images[0].shape == (4, 4)


def test_files_with_windows_and_frames_are_read_as_it_says(tmp_path: Path) -> None:
    one, film = write(tmp_path / "one.dcm", ct(ramp())), write(tmp_path / "film.dcm", ct(np.stack([ramp()] * 5)))
    files = [one, f"{film}#3", one.read_bytes(), "a.png", "b.png", "c.png"]
    soft = make(images=files, reading=Reading("soft"))
    assert soft.images[:2] == [ImageInFile(one, DecodeOptions(0, "soft")), ImageInFile(film, DecodeOptions(3, "soft"))]
    assert soft.images[2:4] == [ImageInFile(one.read_bytes(), DecodeOptions(0, "soft")), Path("a.png")]
    assert replace(soft, notes=()).images == soft.images
    assert (soft.reading, make(images=files).reading) == (Reading("soft"), Reading())
    assert make(reading=Reading("soft")).reading is make(images=["a.png"] * N).reading is None
    for several in (film, film.read_bytes()):
        with pytest.raises(UserError, match="it holds 5 images"):
            make(images=[one, several] * 3)
    with pytest.raises(
        UserError, match="reading is a str; give a Reading, or None for the window and frames of the files"
    ):
        make(reading="soft")
    middle = make(images=[film, film.read_bytes()] * 3, reading=Reading(frame="middle"))
    assert {image.options.frame for image in middle.images if isinstance(image, ImageInFile)} == {2}


def test_no_group_at_all_is_none() -> None:
    assert make(groups=[""] * N).groups is None
    assert make(groups=[None] * N).groups is None


def test_what_libraries_have_for_a_missing_group_is_no_group() -> None:
    class NotAvailable:
        """As pandas.NA: neither equal to itself nor different."""

        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> Any:
            return self

        def __bool__(self) -> bool:
            raise TypeError("boolean value of NA is ambiguous")

    groups = make(groups=["P1", "P1", NotAvailable(), np.datetime64("NaT", "ns"), float("nan"), None]).groups
    assert groups is not None
    assert groups.tolist() == ["P1", "P1", "", "", "", ""]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"labels": np.arange(N) % 3 - 1}, "2 of 6 labels are -1, which often means unlabelled; leave those"),
        ({"labels": [0, 1, 2, 3, 0, 1]}, "label 3 (image 3) is not one of the 3 classes; labels run from 0 to 2"),
        ({"labels": [0, 1, 2, -7, 0, 1]}, "label -7 (image 3) is not one"),
        ({"labels": [0.0, 1.0, 2.0, 0.0, 1.0, 2.0]}, "labels are float64; give whole numbers from 0 to 2"),
        ({"labels": ["benign"] * N}, "give whole numbers from 0 to 2, the places in class_names"),
        ({"labels": [True] * N}, "labels are bool"),
        ({"labels": np.zeros((N, 1), int)}, "labels have the shape [6, 1]; give one number for each image"),
        ({"labels": "012012"}, "labels are a single text"),
        ({"labels": np.ma.masked_equal(np.arange(N) % 3, 1)}, "labels: 2 values are masked; leave those images out"),
        ({"labels": None}, "labels"),
        ({"labels": [0, 1]}, "6 images for 2 labels; give one for each image"),
        ({"class_names": ("benign", "benign", "normal")}, "'benign' and 'benign' are the same; rename one"),
        ({"class_names": ("HER-2", "her_2", "normal")}, "'HER-2' and 'her_2' are the same; rename one"),
        ({"class_names": ("caf\u00e9", "cafe\u0301", "normal")}, "are the same; rename one"),
        (
            {"class_names": ("benign", " ", "normal")},
            "a class name is empty (' ' has no visible character); name every class",
        ),
        ({"class_names": ()}, "there is no class; name every class"),
        ({"class_names": "abc"}, "class_names are a str; give a list of texts"),
        ({"class_names": (0, 1, 2)}, "class_names[0] is an int, not text"),
        ({"splits": ["train"] * 5 + ["valid"]}, "unknown split 'valid' (image 5); use train, val or test"),
        ({"splits": "train"}, "splits are a str; give a list of texts"),
        ({"splits": ["train"] * 5}, "5 splits for 6 labels"),
        ({"keys": ["k"] * N}, "several images have the key 'k'; give every image its own key"),
        ({"keys": range(N)}, "keys[0] is an int, not text"),
        ({"keys": ["k"]}, "1 keys for 6 labels"),
        ({"groups": ["P1"]}, "1 groups for 6 labels"),
        ({"groups": "P1"}, "groups are a str; give a list with one entry for each image"),
        ({"images": "scans"}, "images are a str; give a list with one entry for each image"),
        ({"images": [1.5] * N}, "images[0] is of the type float; give a path, a Pillow image"),
        ({"images": np.zeros((N, 64), np.uint8)}, "images have the shape [6, 64]; give [N, H, W] or [N, H, W, 3]"),
        ({"images": None}, "images are None; give a list"),
        ({"name": 3}, "the name of a dataset is text, not an int"),
        ({"root": 3}, "root is an int; give the path"),
        ({"notes": "one"}, "notes are a str; give a list of texts"),
    ],
)
def test_what_cannot_be_is_refused_by_name(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        make(**given)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_class_is_enough_to_test_on() -> None:
    assert make(class_names=["malignant"], labels=[0] * N).counts("test").tolist() == [2]


def test_changing_a_dataset_checks_it_again() -> None:
    with pytest.raises(UserError, match="label 5"):
        replace(make(), labels=np.full(N, 5))


def test_selecting_may_repeat_and_is_quick() -> None:
    n = 80_000
    keys = [f"folder/{i}.png" for i in range(n)]
    data = make(
        images=keys, keys=keys, labels=np.zeros(n, int), splits=["train"] * n, groups=[f"P{i // 4}" for i in range(n)]
    )
    assert data.select([2, 2, 0]).keys == ("folder/2.png", "folder/2.png", "folder/0.png")
    assert len(data.select(data.labels == 0)) == n
    assert data.select(np.arange(n) == 7).keys == ("folder/7.png",)
    start = time.perf_counter()
    for _ in range(5):
        data.select(np.arange(n)[::-1])
    assert time.perf_counter() - start < 2  # about 0.1 s alone; the machine may be shared


@pytest.mark.parametrize(
    ("given", "groups"),
    [
        (["P1", None, float("nan"), "nan", "NA", ""], ["P1", "", "", "", "", ""]),
        (np.array(["P1", np.nan, "None", "P1", "P2", "n/a"]), ["P1", "", "", "P1", "P2", ""]),
        (pa.array(["P1", None, "P1", None, "P2", "P2"]), ["P1", "", "P1", "", "P2", "P2"]),
        ([12.0, 12, np.int64(12), np.float32(7), "7", 12], ["12", "12", "12", "7", "7", "12"]),
    ],
)
def test_groups_that_are_missing_or_written_in_two_ways(given: Any, groups: list[str]) -> None:
    assert make(groups=given).groups.tolist() == groups


def test_what_has_no_order_or_is_not_of_images_is_refused() -> None:
    for given in ({"class_names": {"benign", "malignant", "normal"}}, {"groups": dict.fromkeys(range(N), "P")}):
        with pytest.raises(UserError, match="give a list"):
            make(**given)
    for images in (np.zeros((N, 4, 4)), np.ma.masked_all((N, 4, 4), np.uint8), np.zeros((N, 4, 4), np.int16)):
        with pytest.raises(UserError, match="give uint8 or uint16 without a mask"):
            make(images=images)


def test_labels_are_a_copy_and_splits_are_known_words() -> None:
    labels = np.arange(N) % 3
    data = make(labels=labels)
    labels[:] = 0
    assert data.labels.tolist() == [0, 1, 2, 0, 1, 2]
    with pytest.raises(UserError, match="no split 'tests'; choose train, val or test"):
        data.part("tests")


def test_subgroups_follow_the_images() -> None:
    data = make(
        subgroups={"sex": ["F", "M", None, " F ", float("nan"), "unknown"], "site": [1.0, 2, 1, 2, 1, 2], "x": [""] * N}
    )
    assert {column: values.tolist() for column, values in data.subgroups.items()} == {
        "sex": ["F", "M", "", "F", "", ""],
        "site": ["1", "2", "1", "2", "1", "2"],
    }
    assert data.select([3, 1]).subgroups["sex"].tolist() == ["F", "M"]
    assert data.part("test").subgroups["site"].tolist() == ["1", "2"]
    assert replace(data.part("train"), name="other").subgroups["sex"].tolist() == ["F", "M", "", "F"]
    assert make().subgroups == {}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["F"] * N, "subgroups are a list; give a dict of columns"),
        ({"sex": ["F"]}, "1 values of sex for 6 labels"),
        ({"sex": "F"}, "subgroups\\['sex'\\] are a str; give a list"),
    ],
)
def test_subgroups_that_cannot_be_are_refused(given: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make(subgroups=given)


def test_a_column_with_too_many_values_is_refused() -> None:
    plain = {
        "images": np.zeros((13, 4, 4), np.uint8),
        "keys": [*"abcdefghijklm"],
        "labels": [0] * 13,
        "splits": ["test"] * 13,
    }
    with pytest.raises(UserError, match=r"subgroups\['age'\] has 13 different values; give at most 12"):
        make(**plain, subgroups={"age": range(13)})
