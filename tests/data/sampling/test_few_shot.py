from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from biomedcoop.data.catalogue import find
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.sampling.few_shot import base_novel_classes, sample_few_shot, sample_validation, select_classes
from biomedcoop.errors import UserError

PARITY = Path(__file__).parents[2] / "parity_a"
SYNTHETIC = json.loads((PARITY / "fewshot_synthetic.json").read_text())


def as_dataset(split: dict[str, Any], name: str = "synthetic") -> Dataset:
    """The published split file as a dataset whose images are never opened."""
    rows = [
        (key, label, class_name, part) for part in ("train", "val", "test") for key, label, class_name in split[part]
    ]
    names = {label: class_name for _, label, class_name, _ in rows}
    return Dataset(
        name=name,
        class_names=tuple(names[label] for label in range(len(names))),
        images=[Path(key) for key, *_ in rows],
        keys=tuple(key for key, *_ in rows),
        labels=np.array([label for _, label, *_ in rows], dtype=np.int64),
        splits=np.array([part for *_, part in rows]),
    )


def drawn(data: Dataset, positions: np.ndarray[Any, Any]) -> list[list[Any]]:
    return [[data.keys[i], int(data.labels[i])] for i in positions]


def listed(entries: list[list[Any]]) -> list[list[Any]]:
    return [entry[:2] for entry in entries]


@pytest.mark.parametrize("seed", sorted(SYNTHETIC["expected"]))
def test_draws_equal_the_published_sampler(seed: str) -> None:
    data = as_dataset(SYNTHETIC["split"])
    checked = 0
    for shots, expected in SYNTHETIC["expected"][seed].items():
        train, val = sample_few_shot(data, int(shots), int(seed), repeat=True)
        assert drawn(data, train) == listed(expected["train"])
        assert drawn(data, val) == listed(expected["val"])
        checked += 1
    assert checked >= 5


@pytest.mark.real_data
def test_draws_on_the_published_split_files() -> None:
    folder = Path(os.environ["BIOMEDCOOP_SPLITS"])
    expected = json.loads((PARITY / "fewshot_samples.json").read_text())
    checked = 0
    for seed, datasets in expected.items():
        for name, per_shots in datasets.items():
            content = gzip.decompress((folder / f"split_{name}.json.gz").read_bytes())
            assert hashlib.sha256(content).hexdigest() == find(name).split_sha256  # type: ignore[union-attr]
            data = as_dataset(json.loads(content), name)
            for shots, samples in per_shots.items():
                train, val = sample_few_shot(data, int(shots), int(seed), repeat=True)
                assert drawn(data, train) == listed(samples["train"])
                assert drawn(data, val) == listed(samples["val"])
                checked += 1
    assert checked == 100


def test_the_global_generator_is_left_alone_and_has_no_influence() -> None:
    data = as_dataset(SYNTHETIC["split"])
    random.seed(99)
    state = random.getstate()
    first, _ = sample_few_shot(data, 2, seed=1)
    assert random.getstate() == state
    random.seed(7)
    again, _ = sample_few_shot(data, 2, seed=1)
    other, _ = sample_few_shot(data, 2, seed=2)
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


def test_a_class_with_too_few_images_is_an_error_unless_repeated() -> None:
    data = as_dataset(SYNTHETIC["split"])
    short = int(data.counts("train").argmin())
    with pytest.raises(UserError, match=rf"class '{data.class_names[short]}' has 3 images in train but shots=4; lower"):
        sample_few_shot(data, 4, seed=1)
    with pytest.raises(
        UserError, match=rf"class '{data.class_names[short]}' has 3 images in train but shots=1000; lower"
    ):
        sample_few_shot(data, 1000, seed=1)  # every class is short, and this one most
    train, _ = sample_few_shot(data, 4, seed=1, repeat=True)
    assert np.bincount(data.labels[train]).tolist() == [4] * len(data.class_names)


@pytest.mark.parametrize("shots", [0, -3])
def test_no_shots_is_an_error(shots: int) -> None:
    with pytest.raises(UserError, match=f"shots={shots}"):
        sample_few_shot(as_dataset(SYNTHETIC["split"]), shots, seed=1)


def test_no_val_split_gives_no_val_images() -> None:
    data = as_dataset({**SYNTHETIC["split"], "val": []})
    train, val = sample_few_shot(data, 2, seed=1)
    assert len(train) == 2 * len(data.class_names)
    assert val.tolist() == []


def test_base_and_novel_classes_as_published() -> None:
    published = json.loads((PARITY / "base_new_classes.json").read_text())
    assert len(published) == 10
    for case in published.values():
        base, novel = base_novel_classes(len(case["all"]))
        assert [case["all"][label] for label in base] == case["base"]
        assert [case["all"][label] for label in novel] == case["new"]
    with pytest.raises(UserError, match="at least 2"):
        base_novel_classes(1)


def test_selected_classes_are_relabelled_from_zero() -> None:
    data = as_dataset(SYNTHETIC["split"])
    base, novel = base_novel_classes(len(data.class_names))
    for labels, names in ((base, SYNTHETIC["base"]), (novel, SYNTHETIC["novel"])):
        part = select_classes(data, labels)
        assert list(part.class_names) == names
        assert [part.class_names[label] for label in part.labels] == [
            data.class_names[label] for label in data.labels if label in labels
        ]
        assert set(part.labels.tolist()) == set(range(len(labels)))


@pytest.mark.parametrize("labels", [[], [0, 0], [0, 99], [-1]])
def test_wrong_labels_cannot_be_selected(labels: list[int]) -> None:
    with pytest.raises(UserError, match="distinct labels from 0 to"):
        select_classes(as_dataset(SYNTHETIC["split"]), labels)


def test_a_class_without_training_images_is_refused() -> None:
    data = without_val()
    only_a = data.select(np.flatnonzero(data.labels == 0))
    with pytest.raises(UserError, match="plain: class 'b' has no image in train; add some or remove the class"):
        sample_few_shot(only_a, 1, 1, repeat=True)


# -- validation images of data without a validation split


def without_val() -> Dataset:
    labels = np.repeat([0, 1], [9, 6])
    keys = tuple(f"{i}.png" for i in range(15))
    return Dataset("plain", ("a", "b"), [Path(k) for k in keys], keys, labels, np.array(["train"] * 15))


def test_validation_images_are_other_training_images() -> None:
    data = without_val()
    for shots in (1, 3, 5):
        drawn_now, none = sample_few_shot(data, shots, 1)
        assert not len(none)
        val = sample_validation(data, drawn_now, shots, 1)
        assert len(val) == 2 * min(shots, 4)
        assert not set(val.tolist()) & set(drawn_now.tolist())
        assert np.bincount(data.labels[val]).tolist() == [min(shots, 4)] * 2
        assert (val == sample_validation(data, drawn_now, shots, 1)).all()
    assert (val != sample_validation(data, drawn_now, 5, 2)).any()


def test_a_class_without_images_left_for_validation() -> None:
    data = without_val()
    drawn_now, _ = sample_few_shot(data, 6, 1)
    with pytest.raises(
        UserError, match="class 'b' has no training image left for validation beside those for training"
    ):
        sample_validation(data, drawn_now, 6, 1)
