"""TIFF files of every kind of samples: read as their tags say, or refused in one line. Most are written byte by byte here."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from biomedcoop.data.images.facts import ImageFacts
from biomedcoop.data.images.reading import open_image, read_image
from biomedcoop.errors import ImageError

ROWS, COLUMNS = np.mgrid[:24, :40]
GREY = ((COLUMNS * 6 + ROWS) % 256).astype(np.uint8)
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)
COMPRESSIONS = {"none": 1, "lzw": 5, "deflate": 8, "packbits": 32773}
NAMES = {"lzw": "tiff_lzw", "deflate": "tiff_adobe_deflate", "packbits": "packbits"}


def compressed(data: bytes, compression: str) -> bytes:
    """Bytes as libtiff compresses them: the strip of a grey image of one row."""
    if compression == "none":
        return data
    out = io.BytesIO()
    Image.frombytes("L", (len(data), 1), data).save(out, "TIFF", compression=NAMES[compression])
    with Image.open(out) as image:
        (start,), (count,) = image.tag_v2[273], image.tag_v2[279]
    return out.getvalue()[start : start + count]


def tiff(
    values: np.ndarray,
    photometric: int,
    *,
    kind: int | None = None,
    bits: int | None = None,
    planar: bool = False,
    compression: str = "none",
    predictor: bool = False,
    rows_per_strip: int | None = None,
    order: str = "<",
    data: bytes | None = None,
    without: tuple[int, ...] = (),
    **tags: Any,
) -> bytes:
    """A TIFF file of [H, W] or [H, W, S], with further tags as ``t338=(3, [1])``: (type, values)."""
    height, width = values.shape[:2]
    samples = 1 if values.ndim == 2 else values.shape[2]
    planes = [values[..., k] for k in range(samples)] if planar and samples > 1 else [values]
    rows = rows_per_strip or height
    strips = []
    for plane in planes:
        for top in range(0, height, rows):
            strip = plane[top : top + rows]
            if predictor:
                strip = np.diff(strip, axis=1, prepend=np.zeros_like(strip[:, :1]))
            strips.append(compressed(strip.astype(strip.dtype.newbyteorder(order)).tobytes(), compression))
    if data is not None:
        strips = [data]
    body, offsets = b"", []
    for strip in strips:
        offsets.append(8 + len(body))
        body += strip + b"\0" * (len(strip) % 2)
    entries = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits or values.dtype.itemsize * 8] * samples),
        259: (3, [COMPRESSIONS[compression]]),
        262: (3, [photometric]),
        273: (4, offsets),
        277: (3, [samples]),
        278: (4, [rows]),
        279: (4, [len(strip) for strip in strips]),
        284: (3, [2 if planar else 1]),
        339: (3, [kind or {"u": 1, "i": 2, "f": 3}[values.dtype.kind]] * samples),
    }
    if predictor:
        entries[317] = (3, [2])
    entries |= {int(name[1:]): value for name, value in tags.items()}
    entries = {tag: value for tag, value in entries.items() if tag not in without}
    letters = {3: "H", 4: "I", 8: "h", 11: "f", 12: "d"}
    start = 8 + len(body)
    tail = start + 2 + 12 * len(entries) + 4
    table, extra = struct.pack(order + "H", len(entries)), b""
    for tag, (form, content) in sorted(entries.items()):
        packed = struct.pack(order + letters[form] * len(content), *content)
        cell = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack(order + "I", tail + len(extra))
        extra += packed if len(packed) > 4 else b""
        table += struct.pack(order + "HHI", tag, form, len(content)) + cell
    head = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, start)
    return head + body + table + struct.pack(order + "I", 0) + extra


def read(content: bytes) -> np.ndarray:
    return np.asarray(open_image(content).image)


def grey(content: bytes) -> list[int]:
    """The first row, which must be grey."""
    found = read(content)
    assert (found == found[..., :1]).all()
    return found[0, :, 0].tolist()


def facts(content: bytes) -> ImageFacts:
    return open_image(content).facts


def refusal(content: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        open_image(content, "scan.tif")
    assert str(caught.value).startswith("scan.tif: ")
    assert "\n" not in str(caught.value)
    return caught.value.reason


def deep(values: np.ndarray) -> np.ndarray:
    return values.astype(np.uint16) * 257


# -- layouts: the same pixels however they are stored


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("rows", [None, 7])
def test_16_bit_grey_and_colour_in_every_layout(
    order: str, compression: str, predictor: bool, rows: int | None
) -> None:
    stored: dict[str, Any] = {"order": order, "compression": compression, "rows_per_strip": rows}
    if compression in ("lzw", "deflate"):
        stored["predictor"] = predictor
    np.testing.assert_array_equal(read(tiff(deep(GREY), 1, **stored))[..., 0], GREY)
    np.testing.assert_array_equal(read(tiff(deep(255 - GREY), 0, **stored))[..., 0], GREY)
    for planar in (False, True):
        np.testing.assert_array_equal(read(tiff(deep(COLOUR), 2, planar=planar, **stored)), COLOUR)
        np.testing.assert_array_equal(read(tiff(COLOUR, 2, planar=planar, **stored)), COLOUR)


@pytest.mark.parametrize("layout", [{"tile": (16, 32)}, {"bigtiff": True}, {"byteorder": ">", "bigtiff": True}])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiles_and_large_files(layout: dict[str, Any], compression: str | None) -> None:
    for values in (COLOUR, deep(COLOUR)):
        out = io.BytesIO()
        tifffile.imwrite(out, values, photometric="rgb", compression=compression, **layout)
        np.testing.assert_array_equal(read(out.getvalue()), COLOUR)


def test_tiles_with_lzw() -> None:
    """Three tiles of 16 x 16 cover 24 x 40 only in part."""
    whole = np.zeros((32, 48, 3), dtype=np.uint16)
    whole[:24, :40] = deep(COLOUR)
    tiles = [whole[y : y + 16, x : x + 16] for y in (0, 16) for x in (0, 16, 32)]
    data = [compressed(tile.astype("<u2").tobytes(), "lzw") for tile in tiles]
    body = [piece + b"\0" * (len(piece) % 2) for piece in data]
    starts = [8 + sum(map(len, body[:number])) for number in range(len(body))]
    shape = {"t322": (4, [16]), "t323": (4, [16]), "t324": (4, starts), "t325": (4, list(map(len, data)))}
    content = tiff(deep(COLOUR), 2, data=b"".join(body), without=(273, 278, 279), t259=(3, [5]), **shape)
    np.testing.assert_array_equal(read(content), COLOUR)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", None])
def test_pillow_and_tifffile_agree(compression: str | None) -> None:
    """What Pillow writes of 16-bit and float grey is what its own reader and this one find in it."""
    for values in (deep(GREY), GREY.astype(np.float32)):
        out = io.BytesIO()
        Image.fromarray(values).save(out, "TIFF", compression=compression)
        with Image.open(out) as stored:
            np.testing.assert_array_equal(np.asarray(stored), values)
        np.testing.assert_array_equal(read(out.getvalue())[..., 0], GREY)


def test_plain_files_are_pillows_to_the_bit() -> None:
    picture = Image.fromarray(COLOUR)
    for mode in ("RGB", "L", "1", "P", "CMYK", "RGBA", "LA"):
        for compression in (None, "tiff_lzw", "tiff_adobe_deflate"):
            out = io.BytesIO()
            image = picture.convert(mode)
            if mode == "RGBA":
                image.putalpha(Image.fromarray(GREY))
            image.save(out, "TIFF", compression=compression)
            with Image.open(out) as stored:
                layer = stored.convert("RGBA")
            expected = Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer).convert("RGB")
            np.testing.assert_array_equal(read(out.getvalue()), np.asarray(expected))
    out = io.BytesIO()
    picture.save(out, "TIFF", compression="jpeg")
    with Image.open(out) as stored:
        np.testing.assert_array_equal(read(out.getvalue()), np.asarray(stored.convert("RGB")))


def test_tifffile_is_imported_only_for_what_needs_it(tmp_path: Path) -> None:
    (tmp_path / "plain.tif").write_bytes(tiff(COLOUR, 2))
    (tmp_path / "deep.tif").write_bytes(tiff(deep(COLOUR), 2))
    program = (
        "import sys; from pathlib import Path; from biomedcoop.data.images.reading import read_image\n"
        "for name in ('plain', 'deep'): read_image(Path(name + '.tif')); print('tifffile' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == ["False", "True"]


# -- depth


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_grey_colour_and_arrays_have_one_rule_of_depth(bits: int) -> None:
    top = 2**bits - 1
    ramp = np.array([[0, top // 2, top]], dtype=np.uint16)
    for values in (ramp, np.repeat(ramp[..., None], 3, axis=2)):
        content = tiff(values, 1 if values.ndim == 2 else 2)
        assert grey(content) == [0, 127, 255]
        assert facts(content) == ImageFacts(depth=bits, guessed=True)
        opened = open_image(values)
        assert np.asarray(opened.image)[0, :, 0].tolist() == [0, 127, 255]
        assert opened.facts == ImageFacts(depth=bits, guessed=True)


def packed(values: np.ndarray, bits: int) -> bytes:
    """Samples of any number of bits, one behind the other; each row begins with a byte."""
    rows = values.reshape(len(values), -1)
    shifts = np.arange(bits - 1, -1, -1)
    return b"".join(np.packbits((row[:, None] >> shifts) & 1).tobytes() for row in rows)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_samples_of_10_12_or_14_bits_are_of_that_depth(bits: int) -> None:
    """Whatever the largest value is: here a quarter of what there could be."""
    top = 2**bits - 1
    values = np.array([[0, top // 8, top // 4], [top // 4, 0, 0]], dtype=np.uint16)
    assert grey(tiff(values, 1, bits=bits, data=packed(values, bits))) == [0, 32, 64]
    assert grey(tiff(values, 0, bits=bits, data=packed(values, bits))) == [255, 223, 191]
    colour = np.repeat(values[..., None], 3, axis=2)
    content = tiff(colour, 2, bits=bits, data=packed(colour, bits))
    assert grey(content) == [0, 32, 64]
    assert facts(content) == ImageFacts(depth=bits)


def test_a_stated_largest_value_is_honoured() -> None:
    values = np.array([[0, 500, 1000]], dtype=np.uint16)
    assert grey(tiff(values, 1)) == [0, 125, 249]  # 10 bits, because none is stated
    stated = tiff(values, 1, t281=(3, [4095]))
    assert grey(stated) == [0, 31, 62]
    assert facts(stated) == ImageFacts(depth=12)
    assert grey(tiff(values, 1, t281=(3, [3017]))) == [0, 31, 62]  # a value that occurs somewhere, of 12 bits
    assert grey(tiff(values, 1, t281=(3, [65535]))) == [0, 2, 4]
    assert grey(tiff(values, 1, t341=(3, [2000]))) == [0, 64, 128]
    assert grey(tiff(values + 500, 1, t340=(3, [500]), t341=(3, [1500]))) == [0, 128, 255]
    assert grey(tiff(GREY[:1, :2], 1, t341=(3, [63]))) == [0, 24]
    assert "it states values from 0 to 511 but holds values from 0 to 1000" in refusal(tiff(values, 1, t281=(3, [511])))


def test_8_bit_files_are_as_they_are_whatever_largest_value_they_name() -> None:
    np.testing.assert_array_equal(read(tiff(GREY // 4, 1, t281=(3, [63])))[..., 0], GREY // 4)


# -- kinds of samples


def test_signed_samples_keep_their_order() -> None:
    for dtype in (np.int8, np.int16, np.int32):
        values = np.array([[-100, 0, 100]], dtype=dtype)
        assert grey(tiff(values, 1)) == [0, 128, 255]
        assert grey(tiff(values, 0)) == [255, 127, 0]
        assert facts(tiff(values, 1)) == ImageFacts(depth=0, guessed=True)
    assert grey(tiff(np.array([[-64, 0, 62]], dtype=np.int8), 1, t340=(8, [-128]), t341=(8, [127]))) == [64, 128, 190]
    assert grey(tiff(np.array([[0, 2047, 4095]], dtype=np.int16), 1)) == [0, 127, 255]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_samples_of_grey_and_colour(dtype: type) -> None:
    values = np.array([[0, 0.5, 1]], dtype=dtype)
    assert grey(tiff(values, 1)) == [0, 128, 255]
    assert grey(tiff(values, 1, t340=(11, [0]), t341=(11, [2]))) == [0, 64, 128]
    colour = np.repeat(values[..., None], 3, axis=2)
    assert grey(tiff(colour, 2)) == grey(tiff(colour, 2, planar=True)) == [0, 128, 255]


@pytest.mark.filterwarnings("error")
def test_floats_of_64_bits_that_would_overflow_are_refused() -> None:
    assert grey(tiff(np.array([[-3e38, 0, 3e38]]), 1)) == [0, 128, 255]
    for faulty in (
        tiff(np.array([[-1e308, 0, 1e308]]), 1),
        tiff(np.array([[0, 0.5, 1]]), 1, t340=(12, [-1e308]), t341=(12, [1e308])),
    ):
        with pytest.raises(ImageError, match=r"it holds or states values above 3.4e38"):
            grey(faulty)


def test_32_bit_samples_beyond_those_of_signed_ones() -> None:
    assert grey(tiff(np.array([[0, 2**31, 2**32 - 1]], dtype=np.uint32), 1)) == [0, 128, 255]


def test_the_float_predictor() -> None:
    """Which libtiff undoes for grey of 32 bits, and nothing here for other kinds."""
    values = np.array([[0, 0.5, 1]], dtype=np.float32)

    def written(pixels: np.ndarray) -> bytes:
        wide = pixels.reshape(1, -1).view(np.uint8).reshape(-1, 4)[:, ::-1].T.reshape(1, -1)  # bytes by their weight
        step = pixels.shape[2] if pixels.ndim == 3 else 1
        before = np.concatenate([np.zeros((1, step), np.uint8), wide[:, :-step]], axis=1)
        data = compressed((wide - before).tobytes(), "deflate")
        photometric = 1 if pixels.ndim == 2 else 2
        return tiff(pixels, photometric, compression="deflate", data=data, t317=(3, [3]))

    assert grey(written(values)) == [0, 128, 255]
    assert "predictor" in refusal(written(np.repeat(values[..., None], 3, axis=2)))


# -- colours and channels


def test_palettes_of_8_and_16_bits() -> None:
    table = np.zeros((3, 256), dtype=np.uint16)
    table[:, 1], table[:, 2] = (65535, 0, 0), (32896, 32896, 32896)
    for values in (np.array([[0, 1, 2]], dtype=np.uint8), np.array([[0, 1, 2]], dtype=np.uint16)):
        own = np.zeros((3, 2 ** (8 * values.itemsize)), dtype=np.uint16)
        own[:, :256] = table
        content = tiff(values, 3, t320=(3, own.ravel().tolist()))
        assert read(content)[0].tolist() == [[0, 0, 0], [255, 0, 0], [128, 128, 128]]
    of_8_bits = tiff(np.array([[0, 1, 2]], dtype=np.uint8), 3, t320=(3, (table // 257).ravel().tolist()))
    assert read(of_8_bits)[0].tolist() == [[0, 0, 0], [255, 0, 0], [128, 128, 128]]


def test_alpha_of_16_bits() -> None:
    white, half = 65535, 32768
    colour = np.array(
        [[[white, white, white, white], [white, white, white, half], [white, white, white, 0]]], dtype=np.uint16
    )
    assert grey(tiff(colour, 2, t338=(3, [2]))) == [255, 128, 0]  # unassociated
    assert grey(tiff(colour, 2, planar=True, t338=(3, [2]))) == [255, 128, 0]
    assert grey(tiff(colour, 2)) == [255, 128, 0]  # no word of it, as Pillow reads 8 bits
    assert grey(tiff(colour, 2, t338=(3, [0]))) == [255, 255, 255]  # something that is no alpha
    over_black = colour.copy()
    over_black[..., :3] = over_black[..., 3:]
    assert grey(tiff(over_black, 2, t338=(3, [1]))) == [255, 128, 0]  # associated: the colours hold it already
    assert grey(tiff(colour[..., 2:], 1, t338=(3, [2]))) == [255, 128, 0]
    clear = tiff(np.where(np.arange(4) == 3, 0, colour).astype(np.uint16), 2, t338=(3, [2]))
    assert facts(clear) == ImageFacts(depth=16, guessed=True, one_colour=True, transparent=True)


def test_alpha_beside_12_bit_colours_may_use_12_or_16_bits() -> None:
    for opaque in (4095, 65535):
        values = np.array([[[4095, 4095, 4095, opaque], [2048, 2048, 2048, opaque], [0, 0, 0, 0]]], dtype=np.uint16)
        assert grey(tiff(values, 2, t338=(3, [2]))) == [255, 128, 0]


def test_cmyk_of_16_bits_is_that_of_8() -> None:
    inks = np.asarray(Image.fromarray(COLOUR).convert("CMYK"))
    np.testing.assert_array_equal(read(tiff(deep(inks), 5)), read(tiff(inks, 5)))


def test_ycbcr_without_compression_is_read_where_no_colour_is_subsampled() -> None:
    out = io.BytesIO()
    picture = Image.fromarray(COLOUR).convert("YCbCr")
    picture.save(out, "TIFF")
    np.testing.assert_array_equal(read(out.getvalue()), np.asarray(picture.convert("RGB")))
    for planar in (False, True):
        file = tiff(np.asarray(picture), 6, planar=planar, t530=(3, [1, 1]))
        np.testing.assert_array_equal(read(file), np.asarray(picture.convert("RGB")))
    assert "YCbCr in 1 channels" in refusal(tiff(GREY, 6, t530=(3, [1, 1])))
    assert "YCBCR" in refusal(tiff(np.asarray(picture), 6))  # by the standard two by two pixels share their colour
    assert "YCBCR" in refusal(tiff(np.asarray(picture), 6, t530=(3, [2, 1])))


def test_what_is_not_understood_is_refused_with_its_reason() -> None:
    three = np.zeros((4, 4, 3), dtype=np.uint8)
    three[0] = 200
    assert "CIELAB" in refusal(tiff(three, 8))
    assert "CFA" in refusal(tiff(deep(GREY), 32803))
    assert "YCBCR" in refusal(tiff(deep(three), 6))
    assert "3 channels, but its tags describe only 1 as colour" in refusal(tiff(deep(three), 1, t338=(3, [0, 0])))
    assert "inks" in refusal(tiff(deep(np.zeros((4, 4, 4), np.uint8)), 5, t332=(3, [2])))
    assert "different bits" in refusal(tiff(deep(three), 2, t258=(3, [16, 16, 8])))
    alpha = np.zeros((2, 2, 4), dtype=np.float32)
    assert "alpha beside" in refusal(tiff(alpha, 2, t338=(3, [2])))
    colours = tiff(np.array([[0, 9]], dtype=np.uint16), 3, bits=16, t320=(3, [0] * 3 * 4))
    assert refusal(colours)


def test_a_compression_that_cannot_be_undone_is_named() -> None:
    content = tiff(deep(GREY), 1, t259=(3, [34712]))
    assert "16-bit samples with the compression JPEG2000 are not read" in refusal(content)


def test_a_volume_in_one_page_is_refused() -> None:
    out = io.BytesIO()
    tifffile.imwrite(out, np.zeros((16, 32, 32), dtype=np.uint16), volumetric=True, tile=(16, 16, 16))
    assert "a volume or a series" in refusal(out.getvalue())


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("compression", ["none", "lzw", "deflate"])
def test_deep_files_that_are_cut_short(part: float, compression: str) -> None:
    content = tiff(deep(COLOUR), 2, compression=compression, rows_per_strip=5)
    refusal(content[: int(len(content) * part)])
    damaged = tiff(deep(COLOUR), 2, compression=compression, t279=(4, [300]))
    refusal(damaged)


# -- pages and orientation


def test_of_several_deep_pages_the_first_is_read() -> None:
    out = io.BytesIO()
    tifffile.imwrite(out, np.stack([deep(COLOUR), deep(COLOUR[::-1])]), photometric="rgb")
    np.testing.assert_array_equal(read(out.getvalue()), COLOUR)
    assert facts(out.getvalue()) == ImageFacts(depth=16, guessed=True, several_frames=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_stack_of_imagej_has_several_frames(dtype: type) -> None:
    out = io.BytesIO()
    tifffile.imwrite(out, np.stack([GREY, GREY[::-1]]).astype(dtype), imagej=True)
    np.testing.assert_array_equal(read(out.getvalue())[..., 0], GREY)
    assert facts(out.getvalue()).several_frames


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_deep_files_is_that_of_plain_ones(orientation: int) -> None:
    tag = (3, [orientation])
    np.testing.assert_array_equal(read(tiff(deep(COLOUR), 2, t274=tag)), read(tiff(COLOUR, 2, t274=tag)))


def test_the_pixel_limit_holds_for_files_that_only_tifffile_reads() -> None:
    content = tiff(np.zeros((4, 6, 3), dtype=np.float32), 2)
    with pytest.raises(ImageError, match="6 × 4 pixels are more than the limit"):
        open_image(content, "scan.tif", max_pixels=23)


def test_volumes_and_channels_that_nothing_explains_are_refused(tmp_path: Path) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    tifffile.imwrite(tmp_path / "volume.tif", np.stack([grey] * 16), volumetric=True, tile=(16, 16, 16))
    tifffile.imwrite(
        tmp_path / "two.tif",
        np.dstack([grey, 255 - grey]),
        photometric="minisblack",
        planarconfig="contig",
        extrasamples=[0],
    )
    for name in ("volume.tif", "two.tif"):
        with pytest.raises(ImageError):
            read_image(tmp_path / name)


def test_signed_slices_of_one_series_are_scaled_alike(tmp_path: Path) -> None:
    """One with negative values and one without: each by its own range, and both say so."""
    ramp = np.tile(np.linspace(-1000, 900, 64).astype(np.int16), (64, 1))
    for name, values in (("a.tif", ramp), ("b.tif", ramp + 1000)):
        tifffile.imwrite(tmp_path / name, values)
        opened = open_image(tmp_path / name)
        assert (opened.facts.depth, opened.facts.guessed) == (0, True)
    np.testing.assert_array_equal(*(np.asarray(read_image(tmp_path / name)) for name in ("a.tif", "b.tif")))
