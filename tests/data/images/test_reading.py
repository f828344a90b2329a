from __future__ import annotations

import io
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biomedcoop.data.images.content import content_hash
from biomedcoop.data.images.crops import resize_and_crop
from biomedcoop.data.images.decoders import image_suffixes
from biomedcoop.data.images.facts import ImageFacts
from biomedcoop.data.images.reading import open_image, read_image
from biomedcoop.errors import ImageError

PARITY = Path(__file__).parents[2] / "parity_a"
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)


def pixels(path: Path) -> np.ndarray:
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def gradient() -> np.ndarray:
    """A picture without symmetry: uint8 [24, 32, 3]."""
    rows, columns = np.mgrid[:24, :32]
    return np.stack([rows * 8, columns * 7, rows + columns], axis=-1).astype(np.uint8)


def test_test_transform_equals_the_published_one() -> None:
    expected = np.load(PARITY / "preprocess_check.npz")
    image = read_image(PARITY / "preprocess_source.png")
    np.testing.assert_array_equal(resize_and_crop(image, 224), expected["crop224_uint8"])
    normalised = (resize_and_crop(image, 32).astype(np.float32) / 255 - MEAN) / STD
    np.testing.assert_allclose(normalised.transpose(2, 0, 1), expected["tensor32"], atol=1e-6)  # float32 rounding


DICOM, VOLUMES = (".dcm", ".dicom"), (".nii", ".nii.gz", ".nrrd")
"""Formats that Pillow does not write; they have tests of their own."""


@pytest.mark.parametrize("size", [(20000, 10), (10, 20000), (1, 5000), (1, 1)])
def test_extreme_aspect_ratios_are_cropped_without_being_blown_up(size: tuple[int, int]) -> None:
    crop = resize_and_crop(Image.new("RGB", size, (10, 20, 30)), 224)
    assert crop.shape == (224, 224, 3)
    assert (crop == (10, 20, 30)).all()


def test_the_extreme_path_shows_the_same_centre_as_the_ordinary_one() -> None:
    generator = np.random.default_rng(0)
    wide = Image.fromarray(generator.integers(0, 256, (20, 20 * 17, 3), dtype=np.uint8))  # just beyond the limit of 16
    resized = wide.resize((224 * 17, 224), Image.Resampling.BICUBIC)
    left = (224 * 17 - 224) // 2
    ordinary = np.asarray(resized.crop((left, 0, left + 224, 224))).astype(int)
    assert np.abs(resize_and_crop(wide, 224).astype(int) - ordinary).max() <= 1


@pytest.mark.parametrize(("bits", "largest"), [(8, 255), (10, 1023), (12, 4095), (14, 16383), (16, 65535)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_by_its_effective_depth(tmp_path: Path, bits: int, largest: int, suffix: str) -> None:
    values = np.array([[0, largest // 2, largest]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"deep.{suffix}")
    got = pixels(tmp_path / f"deep.{suffix}")[0, :, 0]
    np.testing.assert_array_equal(got, [0, 127, 255])
    np.testing.assert_array_equal(np.asarray(read_image(values))[0, :, 0], [0, 127, 255])


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_float_and_32_bit_tiff_span_their_own_range(tmp_path: Path, dtype: type) -> None:
    values = np.array([[-1000, 0, 3000]], dtype=dtype)
    Image.fromarray(values).save(tmp_path / "ct.tif")
    np.testing.assert_array_equal(pixels(tmp_path / "ct.tif")[0, :, 0], [0, 64, 255])


def test_not_finite_values(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, np.nan, np.inf, 2]], dtype=np.float32)).save(tmp_path / "some.tif")
    np.testing.assert_array_equal(pixels(tmp_path / "some.tif")[0, :, 0], [0, 0, 255, 255])
    Image.fromarray(np.full((2, 2), np.nan, dtype=np.float32)).save(tmp_path / "all.tif")
    with pytest.raises(ImageError, match="no pixel has a finite value"):
        read_image(tmp_path / "all.tif")


def test_transparency_is_put_on_black(tmp_path: Path) -> None:
    rgba = np.full((2, 2, 4), 255, dtype=np.uint8)
    rgba[0, 0, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    Image.fromarray(rgba).convert("LA").save(tmp_path / "la.png")
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([255, 0, 0, 255, 255, 255])
    palette.putpixel((0, 0), 0)
    palette.save(tmp_path / "palette.png", transparency=0)
    for name in ("rgba", "la", "palette"):
        got = pixels(tmp_path / f"{name}.png")
        assert got[0, 0].tolist() == [0, 0, 0], name
        assert (got[1] == 255).all(), name


def test_opaque_palette_one_bit_and_cmyk_are_read_as_pillow_converts_them(tmp_path: Path) -> None:
    image = Image.fromarray(gradient())
    for mode, suffix in (("P", "png"), ("1", "png"), ("L", "jpg"), ("CMYK", "jpg"), ("CMYK", "tif")):
        path = tmp_path / f"{mode}.{suffix}"
        image.convert(mode).save(path)
        with Image.open(path) as stored:
            np.testing.assert_array_equal(pixels(path), np.asarray(stored.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("deep", [False, True])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, deep: bool) -> None:
    upright = gradient()[..., 0].astype(np.uint16) * 257 if deep else gradient()
    upright[0, 0] = 65535 if deep else 255
    stored = {  # how a camera stores an upright picture under each tag
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: upright.swapaxes(0, 1)[::-1],
        7: upright.swapaxes(0, 1)[::-1, ::-1],
        8: upright.swapaxes(0, 1)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "photo.png", exif=exif)
    expected = np.repeat((upright // 257)[..., None], 3, axis=-1) if deep else upright
    np.testing.assert_array_equal(pixels(tmp_path / "photo.png"), expected)


@pytest.mark.parametrize("suffix", ["gif", "png", "tif"])
def test_only_the_first_frame_is_read_and_that_is_a_fact(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    path = tmp_path / f"film.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert (pixels(path) == (255, 0, 0)).all()
    assert open_image(path).facts.several_frames


@pytest.mark.parametrize("suffix", [one for one in image_suffixes() if one not in (*DICOM, *VOLUMES)])
def test_every_suffix_that_folders_take_is_a_format_that_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"scan{suffix}"
    if suffix == ".pfm":
        Image.fromarray(gradient()[..., 0].astype(np.float32)).save(path)
    else:
        lossless = {".webp": {"lossless": True}, ".jpe": {"format": "JPEG"}}
        picture = Image.fromarray(gradient())
        picture = picture.convert("1") if suffix == ".pbm" else picture
        picture.save(path, **lossless.get(suffix, {}))
    assert pixels(path).shape == (24, 32, 3)
    assert not open_image(path).facts.one_colour


def test_other_formats_of_pillow_are_not_read_by_chance(tmp_path: Path) -> None:
    """Their samples follow rules that nobody here knows, and one of them runs another program."""
    for suffix in ("ico", "pcx", "eps", "sgi"):
        Image.fromarray(gradient()).save(tmp_path / f"scan.{suffix}")
        (tmp_path / f"scan.{suffix}").rename(tmp_path / "scan.png")
        with pytest.raises(ImageError, match="not a readable image"):
            read_image(tmp_path / "scan.png")


def test_facts_of_ordinary_and_of_black_files(tmp_path: Path) -> None:
    Image.fromarray(gradient()).save(tmp_path / "scan.png")
    assert open_image(tmp_path / "scan.png").facts == ImageFacts()
    almost = np.zeros((24, 32), dtype=np.uint8)
    almost[11, 17] = 1
    assert not open_image(almost).facts.one_colour
    assert open_image(almost * 0).facts == ImageFacts(one_colour=True)
    assert open_image(almost.astype(np.uint16) * 0).facts == ImageFacts(depth=8, guessed=True, one_colour=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_array_may_hold_alpha(dtype: type) -> None:
    top = np.iinfo(dtype).max
    values = np.array([[[top, top, top, top], [top, top, top, 0]]], dtype=dtype)
    assert np.asarray(read_image(values))[0, :, 0].tolist() == [255, 0]
    assert open_image(values[:, 1:]).facts.transparent


def test_the_hash_is_of_the_content_only(tmp_path: Path) -> None:
    first = PARITY / "preprocess_source.png"
    copy = tmp_path / "another name.png"
    copy.write_bytes(first.read_bytes())
    assert content_hash(first) == content_hash(copy) == open_image(first).digest
    assert len(content_hash(first)) == 32
    copy.write_bytes(first.read_bytes() + b"\0")
    assert content_hash(first) != content_hash(copy)


def test_the_hash_of_an_array_knows_its_shape_and_type() -> None:
    flat = np.zeros((2, 8), dtype=np.uint8)
    hashes = {content_hash(flat), content_hash(flat.reshape(4, 4)), content_hash(flat.view(np.uint16))}
    assert len(hashes) == 3
    strided = np.zeros((2, 16), dtype=np.uint8)[:, ::2]
    assert content_hash(strided) == content_hash(flat) == open_image(flat).digest


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), dtype=np.float32),
        np.zeros((4, 4, 5), dtype=np.uint8),
        np.zeros((0, 4), dtype=np.uint8),
        np.zeros(4, dtype=np.uint8),
    ],
)
def test_arrays_that_are_no_image(array: np.ndarray) -> None:
    with pytest.raises(ImageError, match=r"train\[3\]: an array of"):
        read_image(array, where="train[3]")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "webp"])
def test_truncated_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    for part in (0.1, 0.5, 0.9):
        path.write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(ImageError) as caught:
            read_image(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_content_that_is_no_image(tmp_path: Path) -> None:
    path = tmp_path / "note.jpg"
    path.write_text("this is text")
    with pytest.raises(ImageError, match="not a readable image"):
        read_image(path)
    path.write_bytes(b"")
    with pytest.raises(ImageError, match="empty"):
        read_image(path)


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="is a folder"):
        read_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="not a regular file"):
        read_image(tmp_path / "pipe.png")


def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    Image.new("L", (4, 4)).save(path)
    path.chmod(0)
    root = os.geteuid() == 0  # who may read everything: act as somebody else for a moment
    if root:
        os.seteuid(65534)
    try:
        with pytest.raises(ImageError, match="no permission"):
            read_image(path)
    finally:
        if root:
            os.seteuid(0)


def test_the_pixel_limit_is_checked_from_the_header(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("1", (3000, 2000)).save(path)
    with pytest.raises(ImageError, match=r"3000 × 2000 pixels are more than the limit of 5.72 megapixels"):
        read_image(path, max_pixels=5_999_999)
    assert read_image(path, max_pixels=6_000_000).size == (3000, 2000)
    with pytest.raises(ImageError, match="2 × 2 pixels are more than the limit"):
        read_image(np.zeros((2, 2), dtype=np.uint8), max_pixels=3)


def test_a_picture_of_30000_by_30000_is_refused_without_decoding_it(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    header = Image.new("1", (30000, 1))
    header.save(path)
    content = bytearray(path.read_bytes())
    content[20:24] = (30000).to_bytes(4, "big")  # IHDR height; its checksum must agree
    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    path.write_bytes(bytes(content))
    with pytest.raises(ImageError, match="more pixels than the limit of 64 megapixels"):
        read_image(path)


def test_formats_that_this_pillow_lacks_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = {name: plugin for name, plugin in Image.OPEN.items() if name not in ("AVIF", "WEBP")}
    monkeypatch.setattr(Image, "OPEN", opened)
    content = io.BytesIO()
    Image.new("RGB", (4, 4)).save(content, "PNG")
    assert read_image(content.getvalue()).size == (4, 4)
    with pytest.raises(ImageError, match="the content is not a readable image"):
        read_image(b"RIFF\0\0\0\0WEBP" + bytes(30))
