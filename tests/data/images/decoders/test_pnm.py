"""PNM files: the stated largest value is white, 65535 names the container only."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from biomedcoop.data.images.facts import ImageFacts
from biomedcoop.data.images.reading import open_image
from biomedcoop.errors import ImageError


def grey(content: bytes) -> list[int]:
    found = np.asarray(open_image(content).image)
    assert (found == found[..., :1]).all()
    return found[0, :, 0].tolist()


def binary(values: list[int], top: int, colour: bool = False) -> bytes:
    samples = np.repeat(values, 3 if colour else 1).astype(">u2" if top > 255 else "u1")
    return f"P{6 if colour else 5}\n# a comment\n{len(values)} 1\n{top}\n".encode() + samples.tobytes()


def text(values: list[int], top: int, colour: bool = False) -> bytes:
    samples = " ".join(map(str, np.repeat(values, 3 if colour else 1)))
    return f"P{3 if colour else 2} # kind\n{len(values)} 1 {top}\n{samples}\n".encode()


@pytest.mark.parametrize("write", [binary, text])
@pytest.mark.parametrize("colour", [False, True])
def test_the_stated_largest_value_is_white(write: object, colour: bool) -> None:
    assert callable(write)
    assert grey(write([0, 500, 1000], 4095, colour)) == [0, 31, 62]
    assert open_image(write([0, 500, 1000], 4095, colour)).facts == ImageFacts(depth=12)
    assert grey(write([0, 500, 1000], 1000, colour)) == [0, 128, 255]
    assert grey(write([0, 50, 100], 100, colour)) == [0, 128, 255]
    assert grey(write([0, 100, 200], 255, colour)) == [0, 100, 200]


@pytest.mark.parametrize("write", [binary, text])
@pytest.mark.parametrize("colour", [False, True])
def test_65535_is_the_container_and_the_depth_that_of_other_16_bit_files(write: object, colour: bool) -> None:
    assert callable(write)
    assert grey(write([0, 2047, 4095], 65535, colour)) == [0, 127, 255]
    assert open_image(write([0, 2047, 4095], 65535, colour)).facts == ImageFacts(depth=12, guessed=True)
    assert grey(write([0, 2047, 65535], 65535, colour)) == [0, 8, 255]


def test_what_pillow_writes_and_float_and_bits() -> None:
    out = io.BytesIO()
    Image.fromarray(np.array([[0, 2047, 4095]], dtype=np.uint16)).save(out, "PPM")
    assert grey(out.getvalue()) == [0, 127, 255]
    out = io.BytesIO()
    Image.fromarray(np.array([[0, 0.5, 1]], dtype=np.float32)).save(out, "PPM")
    assert grey(out.getvalue()) == [0, 128, 255]
    assert grey(b"P1\n3 1\n0 1 0\n") == [255, 0, 255]


def test_samples_that_are_missing_or_too_large() -> None:
    for content, reason in (
        (binary([0, 1, 2], 4095)[:-1], "truncated: only 2 of 3 samples are there"),
        (text([0, 1, 2], 4095)[:-3], "truncated: only 2 of 3 samples are there"),
        (binary([0, 5000], 4095), "it states a largest value of 4095 but holds values from 0 to 5000"),
        (text([0, -1], 4095), "it states a largest value of 4095 but holds values from -1 to 0"),
    ):
        with pytest.raises(ImageError, match=reason):
            open_image(content)
