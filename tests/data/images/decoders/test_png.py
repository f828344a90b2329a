"""PNG files of 16 bits, and transparent greys of few: written chunk by chunk here."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from biomedcoop.data.images.facts import ImageFacts
from biomedcoop.data.images.reading import open_image
from biomedcoop.errors import ImageError

ROWS, COLUMNS = np.mgrid[:9, :13]
KINDS = {1: 0, 2: 4, 3: 2, 4: 6}
"""Channels -> colour type."""


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(values: np.ndarray, *chunks: bytes, interlaced: bool = False) -> bytes:
    """A 16-bit file of [H, W] or [H, W, 2..4], its IDAT cut in two."""
    height, width = values.shape[:2]
    channels = 1 if values.ndim == 2 else values.shape[2]
    steps = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    passes = [values[y::dy, x::dx] for x, y, dx, dy in steps] if interlaced else [values]
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for part in passes if part.size for row in part)
    data = zlib.compress(raw)
    head = struct.pack(">IIBBBBB", width, height, 16, KINDS[channels], 0, 0, interlaced)
    parts = [chunk(b"IHDR", head), *chunks, chunk(b"IDAT", data[:20]), chunk(b"IDAT", data[20:]), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def read(content: bytes) -> np.ndarray:
    return np.asarray(open_image(content).image)


def grey(content: bytes) -> list[int]:
    found = read(content)
    assert (found == found[..., :1]).all()
    return found[0, :, 0].tolist()


def row(*values: int) -> np.ndarray:
    return np.array([values], dtype=np.uint16)


def channels(values: np.ndarray, count: int, alpha: int) -> np.ndarray:
    """The same grey as 1 to 4 channels, the second or fourth of which is alpha."""
    layers = [values] * (3 if count >= 3 else 1) + [np.full_like(values, alpha)] * (count in (2, 4))
    return values if count == 1 else np.stack(layers, axis=-1)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("top", [1023, 4095, 16383, 65535])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_all_kinds_of_16_bit_files_are_scaled_alike(count: int, top: int, interlaced: bool) -> None:
    values = ((COLUMNS * 11 + ROWS) * top // 140).astype(np.uint16)
    values[-1, -1] = top
    expected = (values.astype(np.uint32) * 255 + top // 2) // top
    for opaque in (top, 65535):
        content = png(channels(values, count, opaque), interlaced=interlaced)
        np.testing.assert_array_equal(read(content)[..., 1], expected)
        assert open_image(content).facts == ImageFacts(top.bit_length(), guessed=True)


def test_low_bytes_are_not_lost() -> None:
    """Values that differ in their low byte alone, seen because the depth is 12 bits."""
    assert grey(png(channels(row(0, 8, 16, 255, 4095), 3, 0))) == [0, 0, 1, 16, 255]


def test_partial_alpha_is_put_on_black() -> None:
    values = np.array([[[65535, 65535], [65535, 32768], [65535, 0]]], dtype=np.uint16)
    assert grey(png(values)) == [255, 128, 0]
    assert grey(png(values[..., [0, 0, 0, 1]])) == [255, 128, 0]
    clear = open_image(png(np.array([[[9, 9, 900, 0], [9, 70, 9, 0]]], dtype=np.uint16)))
    assert (clear.facts.one_colour, clear.facts.transparent) == (True, True)


def test_a_transparent_value_of_16_bits_is_compared_with_all_of_them() -> None:
    clear = chunk(b"tRNS", struct.pack(">H", 4095))
    assert grey(png(row(4094, 4095, 2048), clear)) == [255, 0, 128]
    colour = chunk(b"tRNS", struct.pack(">HHH", 4095, 4095, 4095))
    assert grey(png(channels(row(4094, 4095, 2048), 3, 0), colour)) == [255, 0, 128]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_significant_bits_state_the_depth(count: int) -> None:
    stated = chunk(b"sBIT", bytes([12] * count))

    def depth_and_row(values: np.ndarray, alpha: int) -> tuple[int, bool, list[int]]:
        content = png(channels(values, count, alpha), stated)
        return (*open_image(content).facts[:2], grey(content))

    dark = row(0, 100, 200)
    # not scaled up: the values are of 12 bits, though 8 would hold them
    assert depth_and_row(dark, 4095) == (12, False, [0, 6, 12])
    # scaled up as the standard asks, by zeros, by repetition, by rounding: of 16 bits, though 12 would hold them
    for scaled in (dark << 4, dark << 4 | dark >> 8, np.rint(dark * (65535 / 4095)).astype(np.uint16)):
        assert depth_and_row(scaled, 65535) == (16, False, [0, 6, 12])
    assert depth_and_row(row(0, 40000, 65535), 65535) == (16, False, [0, 156, 255])


@pytest.mark.parametrize("bits", [2, 4])
def test_a_transparent_grey_of_few_bits(bits: int) -> None:
    """Which Pillow compares with values that it has scaled up already."""
    top = 2**bits - 1
    samples = [0, 1, top, 1]
    packed = 0
    for sample in samples:
        packed = packed << bits | sample
    data = b"\0" + packed.to_bytes(4 * bits // 8, "big")
    head = struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0)
    clear = chunk(b"tRNS", struct.pack(">H", top))
    parts = [chunk(b"IHDR", head), clear, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    assert grey(b"\x89PNG\r\n\x1a\n" + b"".join(parts)) == [0, 255 // top, 0, 255 // top]


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_deep_files_that_are_cut_short_or_damaged(count: int, part: float) -> None:
    noise = np.random.default_rng(0).integers(0, 65536, (40, 40, count)).astype(np.uint16)
    content = png(noise)
    with pytest.raises(ImageError, match=r"^scan\.png: "):
        open_image(content[: int(len(content) * part)], "scan.png")
    damaged = bytearray(content)
    damaged[int(len(content) * part)] ^= 0xFF
    with pytest.raises(ImageError, match=r"^scan\.png: "):
        open_image(bytes(damaged), "scan.png")
