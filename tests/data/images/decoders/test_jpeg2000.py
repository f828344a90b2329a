"""JPEG 2000: the precision that the codestream states."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from biomedcoop.data.images.decoders.jpeg2000 import deep_samples
from biomedcoop.data.images.facts import ImageFacts
from biomedcoop.data.images.reading import open_image
from biomedcoop.errors import ImageError

START = b"\xff\x4f\xff\x51"


def jpeg2000(values: np.ndarray) -> bytes:
    """Without loss."""
    out = io.BytesIO()
    Image.fromarray(values).save(out, "JPEG2000")
    return out.getvalue()


def restated(content: bytes, precision: int) -> bytes:
    """The same coefficients under another precision, which moves what they are counted from: half of the range."""
    changed = bytearray(content)
    start = content.find(START)
    for channel in range(int.from_bytes(content[start + 40 : start + 42], "big")):
        changed[start + 42 + 3 * channel] = precision
    return bytes(changed)


def grey(content: bytes) -> np.ndarray:
    return np.asarray(open_image(content).image)[..., 0]


def test_16_bit_grey_is_scaled_like_other_files() -> None:
    ramp = np.tile(np.linspace(0, 4095, 32).astype(np.uint16), (16, 1))
    content = jpeg2000(ramp)
    np.testing.assert_array_equal(grey(content), np.asarray(open_image(ramp).image)[..., 0])
    assert open_image(content).facts == ImageFacts(depth=12, guessed=True)


def test_12_bits_that_are_stated_are_the_depth() -> None:
    """Values from 2048 - 100 to 2048 + 100 around the middle of 12 bits."""
    around = np.tile(np.linspace(-100, 100, 32).astype(np.int32), (16, 1))
    content = restated(jpeg2000((32768 + around).astype(np.uint16)), 11)
    np.testing.assert_array_equal(grey(content), ((2048 + around) * 255 + 2047) // 4095)
    assert open_image(content).facts == ImageFacts(depth=12)


def test_8_bit_colour_is_pillows() -> None:
    colour = np.random.default_rng(0).integers(0, 256, (16, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(open_image(jpeg2000(colour)).image), colour)
    assert open_image(jpeg2000(colour)).facts == ImageFacts()


def test_signed_samples_are_refused() -> None:
    content = jpeg2000(np.full((16, 16), 3000, dtype=np.uint16))
    with pytest.raises(ImageError, match="signed samples of 16 bits in JPEG 2000 are not read"):
        open_image(restated(content, 0x8F))


def test_16_bit_colours_of_which_pillow_keeps_too_little_are_refused() -> None:
    """Their high bytes show that fewer than 15 bits are used."""
    content = restated(jpeg2000(np.full((16, 16, 3), 200, dtype=np.uint8)), 15)
    assert (np.asarray(open_image(content).image) == 128).all()  # the high bytes of values around the middle
    with pytest.raises(ValueError, match="16-bit colours that use few of their bits are not read from JPEG 2000"):
        deep_samples(content, Image.new("RGB", (16, 16), (60, 60, 63)))
