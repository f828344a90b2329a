from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from biomedcoop.data.readers.load import load_dataset
from biomedcoop.errors import UserError

Draw = Callable[[Path], Path]
SPLIT: dict[str, Any] = {
    "train": [["b_b/1.png", 1, "b_b"], ["a/1.png", 0, "a"], ["a/2.png", 0, "a"]],
    "val": [["a/3.png", 0, "a"]],
    "test": [["b_b/2.png", 1, "b_b"]],
}


@pytest.fixture
def folder(tmp_path: Path, draw: Draw) -> Path:
    """`D/` with the images of SPLIT and no split file."""
    for entries in SPLIT.values():
        for key, _, _ in entries:
            draw(tmp_path / "D" / key)
    return tmp_path / "D"


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def changed(**changes: Any) -> dict[str, Any]:
    return {**SPLIT, **changes}


def check(data: Any) -> None:
    assert data.class_names == ("a", "b b")
    assert data.keys == ("b_b/1.png", "a/1.png", "a/2.png", "a/3.png", "b_b/2.png")
    assert data.labels.tolist() == [1, 0, 0, 0, 1]
    assert data.splits.tolist() == ["train"] * 3 + ["val", "test"]
    assert all(path.is_file() for path in data.images)


def test_a_folder_is_read_through_its_split_file_in_file_order(folder: Path) -> None:
    write(folder / "split.json", SPLIT)
    check(load_dataset(folder))
    check(load_dataset(folder / "split.json"))


def test_the_published_layout(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    folder.rename(tmp_path / "root" / "D")
    (tmp_path / "root").rename(tmp_path / "outer")
    (tmp_path / "outer").rename(tmp_path / "D")
    write(tmp_path / "D" / "split_D.json", SPLIT)
    data = load_dataset(tmp_path / "D")
    check(data)
    assert data.root == tmp_path / "D" / "D"
    assert data.name == "D"


def test_a_split_file_from_elsewhere(folder: Path, tmp_path: Path) -> None:
    check(load_dataset(folder, split_file=write(tmp_path / "mine.json", SPLIT)))


def test_other_spellings_of_the_splits(folder: Path) -> None:
    words = {"Train": SPLIT["train"], "validation": SPLIT["val"], "TEST": SPLIT["test"]}
    check(load_dataset(write(folder / "split.json", words)))


def test_without_test_images_a_test_split_is_drawn(many_images: Path) -> None:
    listed = [
        [path.relative_to(many_images).as_posix(), "cn".index(path.parent.name[0]), path.parent.name]
        for path in sorted(many_images.rglob("*.png"))
    ]
    write(many_images / "split.json", {"train": listed[1:], "val": listed[:1]})
    data = load_dataset(many_images)
    assert data.counts("val").tolist() == [1, 0]
    assert data.counts("test").tolist() == [12, 12]
    assert "no test split was given" in data.notes[0]


def test_several_split_files(folder: Path) -> None:
    write(folder / "split_A.json", SPLIT)
    write(folder / "split_B.json", SPLIT)
    with pytest.raises(UserError, match=r"several split files \(split_A.json, split_B.json\); .*split_file"):
        load_dataset(folder)
    write(folder / "split_d.json", SPLIT)
    check(load_dataset(folder))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{not json", "not a readable JSON file"),
        ("[" * 100_000, "not a readable JSON file"),
        ('{"train": [], "train": []}', "'train' appears twice"),
        ([], "not a split file"),
        ({}, "not a split file"),
        ({"train": []}, "it lists no image"),
        (changed(train={}), "'train' is not a list"),
        (changed(holdout=[]), "unknown split 'holdout'"),
        (changed(valid=[]), "two lists for the split 'val'"),
        (changed(val=[["a/3.png", 0]]), "val entry 1 is .*; expected"),
        (changed(val=[["a/3.png", "0", "a"]]), "val entry 1"),
        (changed(val=[["a/3.png", True, "a"]]), "val entry 1"),
        (changed(val=[["", 0, "a"]]), "val entry 1"),
        (changed(val=[["a/4.png", 0, "a"]]), "there is no file 'a/4.png'"),
        (changed(val=[["a/1.png", 0, "a"]]), "'a/1.png' is listed in two splits, train and val"),
        (changed(val=[["a/./1.png", 0, "a"]]), "listed in two splits"),
        (changed(val=[["a/x/../3.png", 0, "a"]]), "there is no file"),
        (changed(val=[["a/3.png", 0, "a"]] * 2), "listed twice in val"),
        (changed(val=[["../outside.png", 0, "a"]]), "'../outside.png' is a path outside the dataset folder"),
        (changed(val=[["/etc/hostname", 0, "a"]]), "outside the dataset folder"),
        (changed(val=[["a/3.png", 0, "c"]]), "label 0 has two class names, 'a' and 'c'"),
        (changed(val=[["a/3.png", 2, "A"]]), "class names 'a' and 'A' are the same"),
        (changed(val=[["a/3.png", 7, "c"]]), "the labels are 0, 1, 7; they must be 0 to 2"),
        (changed(val=[["a/3.png", 2, "c"]]), "class 'c' has no image in train"),
        (changed(val=[["a/3.png", 2, " _"]]), "a class name is empty"),
        ({"test": SPLIT["train"]}, "none to train on"),
        ({"train": [["a/1.png", 0, "a"]]}, r"one class \('a'\)"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(folder: Path, draw: Draw, content: Any, message: str) -> None:
    draw(folder.parent / "outside.png")
    file = write(folder / "split.json", content)
    with pytest.raises(UserError, match=message) as caught:
        load_dataset(folder)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_links_that_leave_the_folder(folder: Path, draw: Draw) -> None:
    outside = draw(folder.parent / "elsewhere" / "3.png")
    (folder / "a" / "3.png").unlink()
    (folder / "a" / "3.png").symlink_to(outside)
    write(folder / "split.json", SPLIT)
    with pytest.raises(UserError, match="outside the dataset folder"):
        load_dataset(folder)
    (folder / "a" / "3.png").unlink()
    (folder / "linked").symlink_to(outside.parent)
    write(folder / "split.json", changed(val=[["linked/3.png", 0, "a"]]))
    with pytest.raises(UserError, match="outside the dataset folder"):
        load_dataset(folder)


def test_the_whole_dataset_may_be_reached_through_a_link(folder: Path, tmp_path: Path) -> None:
    write(folder / "split.json", SPLIT)
    (tmp_path / "link").symlink_to(folder)
    data = load_dataset(tmp_path / "link")
    check(data)
    assert data.name == "link"


def test_missing_images_are_counted(folder: Path) -> None:
    (folder / "a" / "1.png").unlink()
    (folder / "a" / "2.png").unlink()
    write(folder / "split.json", SPLIT)
    with pytest.raises(UserError, match=r"no file 'a/1.png' in .*\(2 of the 5 listed images are missing\)"):
        load_dataset(folder)


def test_paths_written_on_windows(folder: Path) -> None:
    write(folder / "split.json", changed(val=[["a\\3.png", 0, "a"]]))
    assert load_dataset(folder).counts("val").tolist() == [1, 0]


def test_a_split_file_that_cannot_be_read(folder: Path) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        load_dataset(folder, split_file=folder / "none.json")
    (folder / "split.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a readable JSON"):
        load_dataset(folder)


def test_data_that_are_only_tested_on(folder: Path) -> None:
    file = write(folder / "split.json", {"test": [["a/1.png", 0, "a"], ["b_b/1.png", 2, "b_b"]]})
    data = load_dataset(folder, for_training=False)
    assert data.class_names == ("a", "class 1", "b b")
    assert data.counts("test").tolist() == [1, 0, 1]
    with pytest.raises(UserError, match="the labels are 0, 2"):
        load_dataset(folder)
    write(file, {"test": [["a/1.png", 0, "a"]]})
    assert load_dataset(folder, for_training=False).class_names == ("a",)


def test_a_split_file_says_a_class_in_any_spelling_and_number(folder: Path) -> None:
    (folder / "t.csv").write_text("path,label\n" + "".join(f"b_b/{n}.png,B_b\n" for n in (1, 2)))
    file = write(folder / "mine.json", {"test": [["b_b/2.png", 1, "b-b"]]})
    data = load_dataset(folder / "t.csv", split_file=file, for_training=False)
    assert (data.keys, data.class_names) == (("b_b/2.png",), ("B b",))


def test_class_names_that_look_the_same(folder: Path) -> None:
    write(folder / "split.json", changed(val=[["a/3.png", 2, "a\u200b"]]))
    with pytest.raises(UserError, match="are the same; rename one"):
        load_dataset(folder)
