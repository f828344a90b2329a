"""Copies of training images among test images, and groups on both sides."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from biomedcoop import Dataset, ImageError
from biomedcoop.data.sampling.leakage import contradicting, copies, group_leaks, leaks


def arrays(splits, groups=None) -> Dataset:
    images = np.random.default_rng(0).integers(0, 256, (len(splits), 8, 8), dtype=np.uint8)
    keys = [f"k{i}" for i in range(len(splits))]
    return Dataset("d", ["a", "b"], images, keys, [i % 2 for i in range(len(splits))], splits, groups)


def test_copies_are_told_by_content_not_by_name(tmp_path: Path, draw) -> None:
    paths = [draw(tmp_path / f"{number}.png") for number in range(4)]
    paths.append(shutil.copy(paths[1], tmp_path / "other name.png"))
    paths.append(tmp_path / "missing.png")
    splits = ["train", "train", "test", "test", "test", "test"]
    data = Dataset("d", ["a"], paths, [Path(path).name for path in paths], [0] * 6, splits)
    assert copies(data, [2, 3, 4, 5], [0, 1]) == [4]
    assert copies(data, [2, 3, 4, 5], [0]) == []
    (leak,) = leaks(data, [0, 1])
    assert leak.text.startswith(
        "Test images that are copies of images that were learned from: 1 of 4; methods that learn"
    )
    assert str(leak).endswith(" The first is 'other name.png'.")


def test_an_unreadable_copy_is_an_error_of_its_own(tmp_path: Path, draw) -> None:
    first = draw(tmp_path / "1.png")
    (tmp_path / "folder").mkdir()
    second = tmp_path / "folder"
    same_size = first.rename(tmp_path / "2.png")
    same_size.write_bytes(b"x" * second.stat().st_size)
    data = Dataset("d", ["a"], [same_size, second], ["2.png", "folder"], [0, 0], ["train", "test"])
    with pytest.raises(ImageError, match="folder: is a folder"):
        copies(data, [1], [0])


def test_copies_among_arrays() -> None:
    data = arrays(["train", "train", "test", "test"])
    data.images[3] = data.images[0]
    assert copies(data, [2, 3], [0, 1]) == [3]


def test_groups_on_both_sides_count_for_the_whole_of_train() -> None:
    data = arrays(["train", "train", "val", "test", "test", "test"], ["P1", "", "P2", "P1", "P2", ""])
    (leak,) = leaks(data, [1])  # P1's training image was not drawn; another seed would draw it
    assert str(leak).startswith("Groups (such as patients) with images in train and in test: 1; methods that learn")
    assert str(leak).endswith(" The first is 'P1'.")
    (leak,) = group_leaks(data, "test", ["train", "val"])
    assert leak.text.startswith(
        "Groups (such as patients) with images in train or val and in test: 2; methods that learn"
    )
    assert "P1" not in leak.text
    assert leaks(data, []) == []  # nothing was learned
    assert group_leaks(arrays(["train", "test"]), "test", ["train"]) == []


def test_copies_with_different_labels(tmp_path: Path, draw) -> None:
    paths = [draw(tmp_path / f"{number}.png") for number in range(3)]
    paths += [shutil.copy(paths[0], tmp_path / "same class.png"), shutil.copy(paths[1], tmp_path / "other class.png")]
    paths.append(tmp_path / "missing.png")
    labels = [0, 0, 0, 0, 1, 1]
    data = Dataset("d", ["a", "b"], paths, [Path(path).name for path in paths], labels, ["train"] * 6)
    assert contradicting(data) == [1, 4]
    assert contradicting(data.select([0, 1, 2, 3])) == []
    assert contradicting(arrays(["train"] * 4)) == []
