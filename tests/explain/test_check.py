"""The check of saliency maps, with maps whose answers are known and with a real one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone
from biomedcoop.data.masks import find_masks
from biomedcoop.errors import UserError
from biomedcoop.explain.check import CENTRE_BLOB, CheckedImages, check_maps, maps_by_name, read_checked

TESTS = ["random weights", "another class", "nonsense text"]


@pytest.fixture(scope="module")
def data() -> bc.Dataset:
    return bc.load_dataset("simulated:breast-ultrasound?train=2&val=0&test=3")


@pytest.fixture(scope="module")
def classifier(data: bc.Dataset, tiny_lite: Backbone) -> bc.Classifier:
    return bc.fit(data, "zero-shot", tiny_lite)


@pytest.fixture
def images(data: bc.Dataset, classifier: bc.Classifier) -> CheckedImages:
    test = data.part("test")
    return read_checked(test, test.labels, find_masks(test), classifier.backbone)


def of_everything(classifier: bc.Classifier, crops: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Noise that depends on the weights, the class and its embedding: nothing stays when one of them changes."""
    maps = []
    for label in classes.tolist():
        of_class = classifier.state["class_embeddings"][label].numpy().tobytes()
        digest = hashlib.sha256(f"{classifier.backbone.fingerprint}{label}".encode() + of_class).digest()
        maps.append(np.random.default_rng(list(digest)).random(crops.shape[1:3], dtype=np.float32))
    return np.stack(maps)


def brightness(classifier: bc.Classifier, crops: np.ndarray, classes: np.ndarray) -> np.ndarray:
    return crops.mean(axis=3, dtype=np.float32) / 255


def test_a_map_that_learned_nothing_fails_every_sanity_check(classifier: bc.Classifier, images: CheckedImages) -> None:
    fixed, changing = check_maps(classifier, images, {"brightness": brightness, "noise": of_everything}, steps=2)
    assert fixed.fails == TESTS
    assert all(change.correlation.value == pytest.approx(1) for change in fixed.changes.values())
    assert changing.fails == []
    assert all(abs(change.correlation.value or 1) < 0.2 for change in changing.changes.values())


def test_the_mask_as_a_map_is_perfect_and_the_blob_is_a_baseline(
    classifier: bc.Classifier, images: CheckedImages
) -> None:
    size = classifier.backbone.image_size
    masks = np.zeros((len(images.crops), size, size), dtype=np.float32)
    masks[:, 5:12, 8:20] = 1
    same = CheckedImages(images.crops, images.labels, [(size, size)] * len(masks), [*(masks[:-1] > 0), None])
    maps = {"mask": lambda *_: masks, CENTRE_BLOB: maps_by_name([])[CENTRE_BLOB]}
    true, blob = check_maps(classifier, same, maps, tolerance=0, steps=2)
    assert true.lesions == len(masks) - 1
    assert (true.pointing.value, true.iou.value, true.energy.value) == (1, 1, 1)
    assert blob.iou.value < 0.5
    assert blob.fails == TESTS


def test_methods_without_words_have_no_nonsense(data: bc.Dataset, tiny_lite: Backbone) -> None:
    found = bc.check_saliency(bc.fit(data, "linear-probe", tiny_lite, shots=2), data, ["grad-cam"], images=4)
    assert [list(row.changes) for row in found.rows] == [TESTS[:2]] * 2


def test_the_check_as_a_user_calls_it(data: bc.Dataset, classifier: bc.Classifier) -> None:
    found = bc.check_saliency(classifier, data, ["grad-cam"], images=6)
    assert [row.map for row in found.rows] == ["grad-cam", CENTRE_BLOB]
    assert {row.images for row in found.rows} == {6}
    assert {row.lesions for row in found.rows} == {4}  # equally many of each class, and normal scans have none
    columns, rows = found.table()
    assert all(len(row) == len(columns) for row in rows)
    assert str(found).splitlines()[0].split() == " ".join(columns).split()
    assert found._repr_html_().count("<tr>") == 3
    assert [row[-1] for row in rows] == ["too few images to tell"] * 2
    assert [dataclasses.replace(row, images=10).verdict for row in found.rows][-1] == ", ".join(TESTS)
    assert dataclasses.replace(found.rows[0], images=10, changes={}).verdict == "none"
    content = json.loads(json.dumps(found.to_dict()))
    assert content["rows"][-1]["fails"] is None, "too few to tell"
    again = bc.check_saliency(classifier, data, ["grad-cam"], images=6)
    assert again == found


def test_given_masks(data: bc.Dataset, classifier: bc.Classifier, tmp_path: Path) -> None:
    none = bc.check_saliency(classifier, data, ["grad-cam"], [None] * len(data), images=3)
    assert none.rows[0].lesions == 0
    assert none.rows[0].pointing.value is None
    everything = bc.check_saliency(
        classifier, data, ["grad-cam"], [np.ones((224, 224), dtype=bool)] * len(data), images=3
    )
    assert everything.rows[0].energy.value == pytest.approx(1)


def test_wrong_arguments(data: bc.Dataset, classifier: bc.Classifier) -> None:
    with pytest.raises(UserError, match="images=0 must be a whole number of at least 1"):
        bc.check_saliency(classifier, data, images=0)
    with pytest.raises(UserError, match="2 masks for 15 images"):
        bc.check_saliency(classifier, data, masks=[None, None])
    with pytest.raises(UserError, match=r"the mask of test/benign_tumor/0000\.png is 9 × 8 px, the image 224 × 224 px"):
        bc.check_saliency(classifier, data, masks=[np.ones((8, 9), dtype=bool)] * len(data), images=9)
    with pytest.raises(UserError, match="no map 'gradcam'; did you mean grad-cam"):
        bc.check_saliency(classifier, data, ["gradcam"])
    with pytest.raises(UserError, match="must come from fit or load"):
        bc.check_saliency("model", data)
