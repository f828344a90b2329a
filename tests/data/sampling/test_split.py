from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biomedcoop.data.readers.load import load_dataset
from biomedcoop.data.sampling.split import draw_split, write_split
from biomedcoop.errors import UserError


def per_class(labels: np.ndarray, splits: np.ndarray, split: str) -> list[int]:
    return np.bincount(labels[splits == split], minlength=int(labels.max()) + 1).tolist()


def test_stratified_to_the_nearest_image() -> None:
    labels = np.repeat([0, 1, 2], [100, 10, 4])
    splits = draw_split(labels, None, 0.3, seed=0)
    assert per_class(labels, splits, "test") == [30, 3, 1]
    assert per_class(labels, splits, "train") == [70, 7, 3]


def test_seeded_and_the_global_generators_play_no_part() -> None:
    labels = np.repeat([0, 1], 50)
    np.random.seed(1)  # noqa: NPY002 - the point is that it has no influence
    first = draw_split(labels, None, 0.3, seed=5)
    np.random.seed(2)  # noqa: NPY002
    assert (draw_split(labels, None, 0.3, seed=5) == first).all()
    assert (draw_split(labels, None, 0.3, seed=6) != first).any()


def test_groups_stay_together_and_shares_stay_near() -> None:
    generator = np.random.default_rng(0)
    groups = generator.integers(0, 60, 600)
    labels = (groups + generator.integers(0, 2, 600)) % 3  # groups hold images of two classes
    splits = draw_split(labels, groups.astype(str), 0.3, seed=1)
    for group in set(groups.tolist()):
        assert len(set(splits[groups == group].tolist())) == 1
    shares = np.array(per_class(labels, splits, "test")) / np.bincount(labels)
    assert np.abs(shares - 0.3).max() < 0.05


def test_an_empty_group_is_a_group_of_one() -> None:
    labels = np.repeat([0, 1], 20)
    splits = draw_split(labels, np.array([""] * 40), 0.3, seed=0)
    assert per_class(labels, splits, "test") == [6, 6]


def test_every_class_keeps_a_training_image_and_gets_a_test_image_where_it_can() -> None:
    labels = np.array([0] * 20 + [1, 1] + [2])
    splits = draw_split(labels, None, 0.1, seed=0)
    assert per_class(labels, splits, "train") == [18, 1, 1]
    assert per_class(labels, splits, "test") == [2, 1, 0]


def test_a_class_of_one_group_stays_in_train() -> None:
    labels = np.array([0] * 10 + [1] * 10)
    groups = np.array([f"p{i}" for i in range(10)] + ["only"] * 10)
    splits = draw_split(labels, groups, 0.3, seed=0)
    assert per_class(labels, splits, "test") == [3, 0]


@pytest.mark.parametrize(
    ("labels", "groups", "fraction", "message"),
    [
        ([0, 1], None, 0.3, "no test split can be drawn from 2 images: every class"),
        ([0, 0, 1, 1], ["a", "a", "a", "a"], 0.3, "from 4 images in 1 groups"),
        ([0, 0, 1, 1], None, 0.0, "test fraction 0.0"),
        ([0, 0, 1, 1], None, 1.0, "test fraction 1.0"),
    ],
)
def test_impossible_draws(labels: list[int], groups: list[str] | None, fraction: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        draw_split(np.array(labels), None if groups is None else np.array(groups), fraction, seed=0)


def test_a_written_split_is_read_back_the_same(class_folders: Path, tmp_path: Path) -> None:
    data = load_dataset(class_folders, seed=3)
    write_split(data, tmp_path / "split.json")
    again = load_dataset(class_folders, split_file=tmp_path / "split.json")
    for split in ("train", "val", "test"):
        assert [data.keys[i] for i in data.indices(split)] == [again.keys[i] for i in again.indices(split)]
        assert data.counts(split).tolist() == again.counts(split).tolist()
    assert json.loads((tmp_path / "split.json").read_text())["train"][0][1:] == [0, "cyst"]


def test_nothing_is_left_behind_when_the_split_cannot_be_written(class_folders: Path, tmp_path: Path) -> None:
    data = load_dataset(class_folders)
    with pytest.raises(UserError, match="cannot write"):
        write_split(data, tmp_path / "missing" / "split.json")
    (tmp_path / "taken").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match="cannot write"):
        write_split(data, tmp_path / "taken")
    assert sorted(tmp_path.iterdir()) == before


def test_copies_stay_together(tmp_path: Path) -> None:
    """Forty images in two classes; ten are in both folders."""
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for i in range(40):
            shade = i if label == "a" or i < 10 else i + 100
            Image.new("L", (8, 8), shade).save(tmp_path / label / f"{i}.png")
    data = load_dataset(tmp_path)
    assert data.test_drawn
    split_of = dict(zip(data.keys, data.splits.tolist(), strict=True))
    assert all(split_of[f"a/{i}.png"] == split_of[f"b/{i}.png"] for i in range(10))
    assert set(split_of.values()) == {"train", "test"}
