from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from biomedcoop.data.readers.load import load_dataset
from biomedcoop.data.sampling.split import write_split
from biomedcoop.errors import UserError


def arrays(shape: tuple[int, ...] = (28, 28), classes: int = 2, dtype: type = np.uint8) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    content: dict[str, Any] = {}
    for split, per_class in (("train", 4), ("val", 2), ("test", 3)):
        count = per_class * classes
        content[f"{split}_images"] = generator.integers(0, 256, (count, *shape)).astype(dtype)
        content[f"{split}_labels"] = np.repeat(np.arange(classes), per_class)[:, None].astype(np.uint8)
    return content


def save(path: Path, content: dict[str, Any]) -> Path:
    np.savez(path, **content)
    return path


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 3), (28, 28, 4), (28, 28, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_images_and_labels_of_all_splits(tmp_path: Path, shape: tuple[int, ...], dtype: type) -> None:
    content = arrays(shape, dtype=dtype)
    data = load_dataset(save(tmp_path / "scans.npz", content))
    assert [data.counts(split).tolist() for split in ("train", "val", "test")] == [[4, 4], [2, 2], [3, 3]]
    assert data.keys[:2] == ("train[0]", "train[1]")
    assert data.keys[-1] == "test[5]"
    assert data.root is None
    stored = np.concatenate([content[f"{split}_images"] for split in ("train", "val", "test")])
    np.testing.assert_array_equal(data.images, stored.reshape(data.images.shape))  # type: ignore[union-attr]
    assert data.class_names == ("class 0", "class 1")
    assert "no class names" in data.notes[0]


def test_class_names_of_a_medmnist_file_and_of_an_array(tmp_path: Path) -> None:
    known = load_dataset(save(tmp_path / "pneumoniamnist_64.npz", arrays()))
    assert (known.name, known.class_names) == ("pneumoniamnist", ("normal", "pneumonia"))
    named = load_dataset(save(tmp_path / "own.npz", {**arrays(), "class_names": np.array(["cyst", "normal_kidney"])}))
    assert (named.name, named.class_names) == ("own", ("cyst", "normal kidney"))


def test_without_test_images_a_test_split_is_drawn_and_can_be_applied_again(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (80, 28, 28)).astype(np.uint8)
    file = save(tmp_path / "scans.npz", {"train_images": images, "train_labels": np.arange(80) % 2})
    data = load_dataset(file)
    assert data.counts("test").tolist() == [12, 12]
    write_split(data, tmp_path / "split.json")
    again = load_dataset(file, split_file=tmp_path / "split.json")
    for split in ("train", "val", "test"):
        one, other = data.part(split), again.part(split)
        assert one.keys == other.keys
        np.testing.assert_array_equal(one.images, other.images)  # type: ignore[arg-type]


def test_a_split_file_of_another_dataset_is_refused(tmp_path: Path) -> None:
    file = save(tmp_path / "scans.npz", arrays())
    data = load_dataset(file)
    write_split(data, tmp_path / "split.json")
    text = (tmp_path / "split.json").read_text()
    for wrong, message in (
        (text.replace("train[0]", "train[99]"), "'train\\[99\\]' is not an image of scans"),
        (text.replace("train[0]", "train[1]"), "listed twice in train"),
        (text.replace('["train[0]", 0, "class 0"]', '["train[0]", 1, "class 1"]'), "but in scans it is 0 'class 0'"),
    ):
        (tmp_path / "wrong.json").write_text(wrong)
        with pytest.raises(UserError, match=message):
            load_dataset(file, split_file=tmp_path / "wrong.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_labels": np.array([0, 1])}, r"train_labels are int64 \[2\]; expected integers \[8\] or \[8, 1\]"),
        ({"train_labels": np.zeros((8, 14), dtype=np.uint8)}, "several labels per image"),
        ({"train_labels": np.zeros(8)}, "expected integers"),
        ({"train_labels": None}, "train_labels is missing"),
        ({"train_images": np.zeros((8, 28, 28), dtype=np.float32)}, "must be uint8 or uint16"),
        ({"train_images": np.zeros((8, 28, 28, 28), dtype=np.uint8)}, r"must be \[n, H, W\]"),
        ({"train_images": np.zeros((8, 64, 64), dtype=np.uint8)}, "different type or size"),
        ({"train_images": np.zeros((8, 0, 28), dtype=np.uint8)}, "without pixels"),
        ({"train_labels": np.array([0] * 8)}, "class 'class 1' has no image in train"),
        ({"test_labels": np.array([0, 0, 1, 1, 1, 5])}, "the labels are 0, 1, 5"),
        (
            {"test_labels": np.array([0, 0, 1, 1, 1, 5]), "class_names": np.array(["a", "b"])},
            "label 5 is not in the class",
        ),
        ({"test_labels": np.array([0, 0, 1, 1, 1, -1]), "class_names": np.array(["a", "b"])}, "label -1 is not in the"),
        ({"class_names": np.array(["a", "A"])}, "are the same"),
        ({"class_names": np.array([1, 2])}, "expected text"),
        ({"class_names": np.array(["a", {}], dtype=object)}, "not a readable .npz archive of plain arrays"),
        ({name: None for name in arrays() if not name.startswith("test")}, "none to train on"),
        ({name: None for name in arrays()}, "it holds no images"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    content = {name: array for name, array in {**arrays(), **changes}.items() if array is not None}
    file = save(tmp_path / "scans.npz", content)
    with pytest.raises(UserError, match=message) as caught:
        load_dataset(file)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_files_that_are_no_archive(tmp_path: Path) -> None:
    whole = save(tmp_path / "scans.npz", arrays()).read_bytes()
    for name, content in (("text", b"hello"), ("cut", whole[: len(whole) // 2]), ("empty", b"")):
        (tmp_path / f"{name}.npz").write_bytes(content)
        with pytest.raises(UserError, match=r"not a readable \.npz archive"):
            load_dataset(tmp_path / f"{name}.npz")


@pytest.mark.parametrize("other", ["be\u0301nin", "b\u00e9nin\u200b", "B\u00c9NIN"])
def test_class_names_that_look_the_same(tmp_path: Path, other: str) -> None:
    file = save(tmp_path / "scans.npz", {**arrays(classes=3), "class_names": np.array(["b\u00e9nin", other, "malin"])})
    with pytest.raises(UserError, match=r"are the same; rename one"):
        load_dataset(file)


def test_data_that_are_only_tested_on(tmp_path: Path) -> None:
    images = arrays()["test_images"]
    gap = save(tmp_path / "gap.npz", {"test_images": images, "test_labels": np.array([0, 0, 2, 2, 2, 0])})
    data = load_dataset(gap, for_training=False)
    assert data.class_names == ("class 0", "class 1", "class 2")
    assert data.counts("test").tolist() == [3, 0, 3]
    names = np.array(["cyst", "stone", "tumor"])
    one = {"test_images": images, "test_labels": np.full(6, 2), "class_names": names}
    assert load_dataset(save(tmp_path / "one.npz", one), for_training=False).counts("test").tolist() == [0, 0, 6]
    single = save(tmp_path / "single.npz", {"test_images": images, "test_labels": np.zeros(6, dtype=int)})
    assert load_dataset(single, for_training=False).class_names == ("class 0",)
    for file in (gap, single):
        with pytest.raises(UserError):
            load_dataset(file)
