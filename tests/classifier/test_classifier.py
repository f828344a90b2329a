"""Predicting from Python: whatever an image is given as, one image is one answer."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import biomedcoop as bc
from biomedcoop.errors import Note


@pytest.fixture
def image(test_images: list[Path]) -> Path:
    return test_images[0]


FORMS: list[Callable[[Path], Any]] = [
    str,
    Path.read_bytes,
    lambda path: bytearray(path.read_bytes()),
    lambda path: io.BytesIO(path.read_bytes()),
    lambda path: path.open("rb"),
    Image.open,
    lambda path: Image.open(path).copy(),
    lambda path: Image.open(path).convert("RGBA"),
    lambda path: np.asarray(Image.open(path)),
    lambda path: np.asarray(Image.open(path)).astype(np.uint16) * 257,
    lambda path: torch.from_numpy(np.array(Image.open(path))),
]


@pytest.mark.parametrize("form", FORMS)
def test_one_image_in_every_form_has_the_answer_of_its_file(
    clf: bc.Classifier, image: Path, form: Callable[[Path], Any]
) -> None:
    expected = clf.predict_proba(image)
    assert expected.shape == (1, 3)
    np.testing.assert_array_equal(clf.predict_proba(form(image)), expected)
    np.testing.assert_array_equal(clf.predict_proba([form(image), form(image)]), np.repeat(expected, 2, axis=0))
    assert clf.predict(form(image)) == clf.predict([image])


def test_batches(clf: bc.Classifier, test_images: list[Path]) -> None:
    expected = clf.predict_proba(test_images[:4])
    arrays = np.stack([np.asarray(Image.open(path)) for path in test_images[:4]])
    for batch in (arrays, list(arrays), torch.from_numpy(arrays), np.array([str(path) for path in test_images[:4]])):
        np.testing.assert_array_equal(clf.predict_proba(batch), expected)
    assert clf.predict_proba(arrays[..., 0]).shape == (4, 3)
    assert clf.predict_proba(arrays[0, ..., 0]).shape == (1, 3)
    assert clf.predict([]) == []
    assert [row.tolist() for _, row, *_ in clf.predict_stream(iter(test_images[:4]))] == expected.tolist()  # type: ignore[union-attr]


def test_what_is_no_image_is_named(clf: bc.Classifier, image: Path) -> None:
    pixels = np.asarray(Image.open(image))
    for wrong, words in (
        (pixels.transpose(2, 0, 1), r"images is an array \[3, 40, 40\] whose channels are not last; give \[H, W, 3\]"),
        ([image, None], r"images\[1\] is missing \(None\); give a path, a Pillow image"),
        (5, "images is of the type int; give a path"),
        ([image, b"text"], r"images\[1\]: the content is not a readable image"),
        ([pixels, pixels / 255], r"images\[1\]: an array of float64 \[40, 40, 3\]; give uint8 or uint16"),
        ([image, "missing.png"], r"missing\.png: there is no such file"),
    ):
        with pytest.raises(bc.UserError, match=words):
            clf.predict(wrong)


def test_an_image_that_cannot_be_read_keeps_its_place_in_a_stream(clf: bc.Classifier, image: Path) -> None:
    rows = [answer.probabilities for answer in clf.predict_stream([image, b"text", image])]
    assert isinstance(rows[1], bc.ImageError)
    np.testing.assert_array_equal(rows[0], rows[2])  # type: ignore[arg-type]


def test_what_a_user_should_know_of_the_images_is_a_warning(clf: bc.Classifier, image: Path) -> None:
    deep = np.tile(np.arange(0, 1000, 25, dtype=np.uint16), (40, 1))
    brighter = deep.copy()
    brighter[0, 0] = 1024
    with pytest.warns(Note, match=r"1 at 10 bits \(first images\[0\]\), 1 at 12 bits \(first images\[1\]\)"):
        clf.predict([deep, brighter])
    with pytest.warns(Note, match=r"of a single colour: 1, first images\[1\]"):
        clf.predict([image, np.zeros((40, 40), dtype=np.uint8)])
    with warnings.catch_warnings():
        warnings.simplefilter("error", Note)
        clf.predict([image, image])


def test_threads_that_predict_at_once_get_the_answers_of_one(clf: bc.Classifier, test_images: list[Path]) -> None:
    """One classifier serves eight threads, each with its own image or a few; torch keeps its number of threads."""
    works = [test_images[n : n + 1 + n % 3] for n in range(8)]
    alone, threads = [clf.predict_proba(work) for work in works], torch.get_num_threads()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            together = list(pool.map(clf.predict_proba, works))
            assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))
    assert torch.get_num_threads() == threads


def test_one_image_after_many_has_the_bits_that_it_had_among_them(clf: bc.Classifier, test_images: list[Path]) -> None:
    """Small works leave out the filling of a pass only where the bits are those of a full pass, which is found out on the way."""
    among = clf.predict_proba(test_images[:5])
    for _ in range(3):
        assert np.array_equal(np.concatenate([clf.predict_proba(path) for path in test_images[:5]]), among)
        assert np.array_equal(clf.predict_proba(test_images[:3]), among[:3])
