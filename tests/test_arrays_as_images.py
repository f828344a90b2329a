"""What an array means as images, the same wherever Python code gives one: three axes with 3 last are one colour image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone

GREY = np.random.default_rng(0).integers(0, 256, (6, 24, 24), dtype=np.uint8)
LABELS = ["a", "b"] * 3

Answers = Callable[[Any], Any]


def dataset(images: Any) -> bc.Dataset:
    return bc.Dataset(
        "drawn", ("a", "b"), images, tuple("uvwxyz"), np.array([0, 1] * 3), np.array(["train"] * 6, dtype=np.str_)
    )


@pytest.fixture(scope="module")
def classifier(tiny: Backbone) -> bc.Classifier:
    return bc.fit(dataset(list(GREY)), "simpleshot", tiny, shots="all", alpha=0.5)


@pytest.fixture(scope="module")
def entries(classifier: bc.Classifier, tiny: Backbone) -> dict[str, Answers]:
    """Each way to give images without labels, and its answers, one for each image."""
    of_list = bc.FewShotClassifier("simpleshot", tiny).fit(list(GREY), LABELS)
    of_batch = bc.FewShotClassifier("simpleshot", tiny).fit(GREY, LABELS)
    return {
        "predict_proba": classifier.predict_proba,
        "predict": classifier.predict,
        "predict_sets": classifier.predict_sets,
        "predict_stream": lambda images: list(classifier.predict_stream(images)),
        "saliency": lambda images: bc.saliency(classifier, images),
        "FewShotClassifier.predict_proba, of a list": of_list.predict_proba,
        "FewShotClassifier.predict, of a batch": of_batch.predict,
        "ImageEncoder.transform, of a list": bc.ImageEncoder(tiny).fit(list(GREY)).transform,
        "ImageEncoder.transform, of a batch": bc.ImageEncoder(tiny).fit(GREY).transform,
        "ImageEncoder.transform, of an image of one row": bc.ImageEncoder(tiny).fit(GREY[:1, :, :3]).transform,
        "ImageEncoder.fit_transform": bc.ImageEncoder(tiny).fit_transform,
    }


@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy], ids=["array", "tensor"])
def test_an_array_is_as_many_images_wherever_it_is_given(entries: dict[str, Answers], make: Any) -> None:
    for entry, answers in entries.items():
        for images, count in (
            (GREY[0], 1),
            (GREY[0, :, :3], 1),  # grey, of width 3
            (GREY[:, :, :3], 1),  # colour, six rows
            (GREY[..., :4], 1),  # with alpha
            (GREY, 6),
            (np.stack([GREY[:2]] * 3, -1), 2),
        ):
            assert len(answers(make(images.copy()))) == count, (entry, images.shape)
        assert len(answers([make(one[:, :3].copy()) for one in GREY])) == 6, entry


@pytest.mark.parametrize("shape", [(3, 20, 30), (1, 20, 30), (6, 24, 2), (2, 3, 20, 30)])
def test_an_array_with_two_readings_is_refused_wherever_it_is_given(
    entries: dict[str, Answers], shape: tuple[int, ...]
) -> None:
    for entry, answers in entries.items():
        with pytest.raises(bc.UserError, match="whose channels are not last"):
            pytest.fail(f"{entry}: {answers(np.zeros(shape, np.uint8))}")


def test_a_batch_of_width_3_is_refused_where_labels_say_that_it_is_one(tiny: Backbone) -> None:
    narrow = GREY[:, :, :3]
    fits: dict[str, Callable[[], Any]] = {
        "FewShotClassifier": lambda: bc.FewShotClassifier("simpleshot", tiny).fit(narrow, LABELS),
        "ImageEncoder": lambda: bc.ImageEncoder(tiny).fit(narrow, LABELS),
        "Dataset": lambda: dataset(narrow),
    }
    for entry, fit in fits.items():
        with pytest.raises(
            bc.UserError, match=r"\[6, 24, 3\], which is one image with 3 channels.* as a list of arrays"
        ) as caught:
            fit()
        assert "\n" not in str(caught.value), entry


def test_an_array_is_one_image_or_none_where_no_several_are_taken(classifier: bc.Classifier, tiny: Backbone) -> None:
    entries: dict[str, Answers] = {
        "embed": lambda images: bc.embed(images, tiny),
        "suggest": lambda images: bc.suggest(classifier, images),
        "case": lambda images: bc.case(classifier, images),
    }
    for entry, answers in entries.items():
        with pytest.raises((bc.UserError, bc.ImageError)) as caught:
            answers(GREY)
        assert "\n" not in str(caught.value), entry
    colour = GREY[:, :, :3]
    agrees = bc.case(classifier, colour).predicted.probability
    assert agrees == pytest.approx(classifier.predict_proba(colour).max(), abs=1e-6)
