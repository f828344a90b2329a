"""Images unlike the training images: what counts as unlike, what the artefact keeps, and what users are told."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone
from biomedcoop.classifier.domain import CANNOT_TELL, Domain, distances, left_out_distances, unlike_note
from biomedcoop.errors import Note
from classifier.test_artefact import describe


@pytest.fixture
def cloud() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    def draw(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        rng, y = np.random.default_rng(seed), np.arange(n) % 2
        centres = np.eye(2, 16)
        return (centres[y] + 0.05 * rng.standard_normal((n, 16))).astype(np.float32), y

    return draw


def test_few_images_of_the_same_kind_are_flagged_and_all_of_another(cloud) -> None:
    domain = Domain.of(*cloud(32))
    assert domain is not None
    assert domain.means.shape == (2, 16)
    more, _ = cloud(1000, seed=1)
    assert domain.unlike(more).mean() < 0.03
    assert domain.unlike(np.roll(more, 3, axis=1)).all()
    np.testing.assert_array_equal(domain.unlike(1000 * more), domain.unlike(more))  # only the direction counts


def test_a_left_out_image_has_no_part_in_its_class_mean(cloud) -> None:
    x, y = cloud(12)
    for i, found in enumerate(left_out_distances(x, y)):
        rest = np.arange(12) != i
        unit = x[rest] / np.linalg.norm(x[rest], axis=1, keepdims=True)
        means = np.stack([unit[y[rest] == k].sum(0) for k in (0, 1)])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        assert found == pytest.approx(distances(x[i : i + 1], means)[0], abs=1e-6)


def test_too_few_images_give_no_domain(cloud) -> None:
    x, y = cloud(8)
    assert Domain.of(x, y) is not None
    assert Domain.of(x[:7], y[:7]) is None
    assert Domain.of(x, np.array([0] * 7 + [1])) is None  # the mean of one image would be that image
    assert Domain.of(x[:0], y[:0]) is None


def test_the_artefact_keeps_the_domain_and_no_feature_of_an_image(clf: bc.Classifier, tmp_path: Path) -> None:
    assert clf.domain is not None
    clf.save(tmp_path / "model")
    again = bc.load(tmp_path / "model", clf.backbone)
    assert again.domain is not None
    assert again.state.keys() == clf.state.keys()
    np.testing.assert_array_equal(again.domain.means, clf.domain.means)
    assert again.domain.limit == clf.domain.limit
    assert clf.domain.means.shape == (3, clf.backbone.embed_dim)
    assert "mean feature of each class's training images" in (tmp_path / "model" / "README.md").read_text()
    assert clf.for_classes(["polyp", "cyst"]).domain is None


def test_an_artefact_without_a_domain_says_nothing(clf: bc.Classifier, tmp_path: Path, test_images: list[Path]) -> None:
    dataclasses.replace(clf, domain=None).save(tmp_path / "model")
    again = bc.load(tmp_path / "model", clf.backbone)
    assert again.domain is None
    with warnings.catch_warnings():
        warnings.simplefilter("error", Note)
        again.predict([np.zeros((40, 40), np.uint8) + np.arange(40, dtype=np.uint8)])


@pytest.mark.parametrize("change", ["width", "missing"])
def test_a_damaged_domain_is_refused(clf: bc.Classifier, tmp_path: Path, change: str) -> None:
    clf.save(tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    tensors = load_file(file)
    if change == "width":
        tensors["domain.means"] = tensors["domain.means"][:, 1:].copy()
    else:
        del tensors["domain.limit"]
    save_file(tensors, file)
    describe(tmp_path / "model")
    with pytest.raises(bc.UserError, match=r"model\.safetensors: damaged"):
        bc.load(tmp_path / "model", clf.backbone)


def test_views_of_the_training_images_do_not_change_the_domain(clf: bc.Classifier, discs: Path, tiny: Backbone) -> None:
    data = bc.load_dataset(discs)
    cropped = bc.fit(data, "biomedcoop", tiny, shots=4, views=2, settings={"epochs": 1})
    assert clf.domain is not None
    assert cropped.domain is not None
    np.testing.assert_allclose(cropped.domain.means, clf.domain.means, atol=1e-6)


def test_predicting_counts_the_images(clf: bc.Classifier, test_images: list[Path]) -> None:
    assert clf.domain is not None
    strict = dataclasses.replace(clf, domain=Domain(clf.domain.means, -1.0))
    with pytest.warns(Note, match=r"30 of 30 images are unlike the training images \(about 2 in 100"):
        strict.predict_proba(test_images)
    with pytest.warns(Note, match="1 of 1 images is unlike"):
        strict.predict(test_images[0])


def test_the_share_of_false_alarms_is_that_of_the_classifiers_own_test_if_there_was_one() -> None:
    assert unlike_note(0, 40, {}) == ""
    assert "(about 2 in 100 images of the training images' own source are too)" in unlike_note(12, 40, {})
    tested = {"test": {"unlike_training": 7, "n_images": 450}}
    assert unlike_note(12, 40, tested).startswith(
        "12 of 40 images are unlike the training images (so are 7 of the 450 images of its own test)"
    )


@pytest.mark.parametrize(("counts", "told"), [((4, 4), False), ((4, 3), True), ((1, 8), True), ((2, 6), False)])
def test_a_model_that_cannot_tell_says_so_at_its_fit(counts: tuple[int, int], told: bool, tiny: Backbone) -> None:
    labels = np.repeat([0, 1], counts)
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 8, 8, 3), dtype=np.uint8)
    keys, splits = tuple(map(str, range(len(labels)))), np.full(len(labels), "train")
    data = bc.Dataset("scans", ("cyst", "stone"), images, keys, labels, splits)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        clf = bc.fit(data, "simpleshot", tiny, "all")
    assert (CANNOT_TELL in [str(note.message) for note in said]) == (clf.domain is None) == told
