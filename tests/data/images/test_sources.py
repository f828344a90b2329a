"""What may be given as an image, and how an array's shape is taken."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import torch
from PIL import Image

from biomedcoop.data.images.content import content_hash
from biomedcoop.data.images.reading import open_image
from biomedcoop.data.images.sources import as_source, as_sources
from biomedcoop.errors import ImageError, UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    Image.fromarray(PIXELS).save(tmp_path / "scan.png")
    return tmp_path / "scan.png"


def seen(image: Any) -> np.ndarray:
    return np.asarray(open_image(as_source(image)).image)


def refusal(images: Any) -> str:
    with pytest.raises(UserError) as caught:
        list(as_sources(images))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_picture_in_every_form(file: Path) -> None:
    content = file.read_bytes()
    closed = Image.open(file).copy()
    for image in (
        *(str(file), file, np.str_(file), content, bytearray(content), memoryview(content), io.BytesIO(content)),
        *(
            Image.open(file),
            closed,
            closed.convert("RGBA"),
            PIXELS,
            np.dstack([PIXELS, np.full((20, 30), 255, np.uint8)]),
        ),
        *(torch.from_numpy(PIXELS), PIXELS.astype(np.uint16) * 257, torch.from_numpy(PIXELS.astype(np.uint16) * 257)),
    ):
        np.testing.assert_array_equal(seen(image), PIXELS)
        assert len(list(as_sources(image))) == 1
        assert len(list(as_sources([image, image]))) == 2
    with file.open("rb") as opened:
        np.testing.assert_array_equal(seen(opened), PIXELS)
        np.testing.assert_array_equal(seen(opened), PIXELS)  # from its start again


def test_grey_in_every_form() -> None:
    grey = PIXELS[..., 0]
    for image in (grey, grey[..., None], Image.fromarray(grey), torch.from_numpy(grey)):
        np.testing.assert_array_equal(seen(image)[..., 1], grey)
        assert len(list(as_sources(image))) == 1


def test_a_pillow_image_that_nobody_decoded_is_its_file(tmp_path: Path) -> None:
    """Pillow would keep the high byte of 16-bit colour alone."""
    from data.images.decoders.test_png import png

    deep = np.repeat(np.array([[0, 2047, 4095]], dtype=np.uint16)[..., None], 3, axis=2)
    (tmp_path / "deep.png").write_bytes(png(deep))
    with Image.open(tmp_path / "deep.png") as image:
        source = as_source(image)
        assert source == (tmp_path / "deep.png").read_bytes()
        assert content_hash(source) == content_hash(tmp_path / "deep.png")
        assert seen(image)[0, :, 0].tolist() == [0, 127, 255]


def test_the_frame_that_is_set_in_a_pillow_image_is_the_one_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    frames[0].save(tmp_path / "film.png", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "film.png") as image:
        image.seek(1)
        assert (seen(image) == (0, 255, 0)).all()


def test_pillow_images_are_rendered_as_files_are() -> None:
    deep = Image.fromarray(np.array([[0, 2047, 4095]], dtype=np.uint16))
    assert seen(deep)[0, :, 0].tolist() == [0, 127, 255]
    clear = Image.new("RGBA", (4, 4), (9, 9, 9, 0))
    assert open_image(clear).facts.transparent
    turned = Image.new("RGB", (4, 2))
    turned.getexif()[0x0112] = 6
    assert open_image(turned).image.size == (2, 4)
    assert turned.size == (4, 2)  # the user's image stays as it is


def test_the_hash_of_a_pillow_image_is_of_what_it_shows() -> None:
    grey = Image.fromarray(PIXELS[..., 0])
    hashes = {content_hash(image) for image in (grey, grey.convert("RGB"), grey.transpose(Image.Transpose.ROTATE_90))}
    palettes = []
    for colour in (0, 255):
        palette = Image.new("P", (2, 2), 1)
        palette.putpalette([0, 0, 0, colour, colour, colour])
        palettes.append(content_hash(palette))
    assert len({*hashes, *palettes}) == 5
    assert content_hash(grey) == content_hash(grey.copy())


@pytest.mark.parametrize(
    ("shape", "images"),
    [
        ((20, 30), 1),
        ((20, 30, 3), 1),
        ((20, 30, 1), 1),
        ((20, 30, 4), 1),
        ((5, 20, 30), 5),
        ((5, 20, 30, 3), 5),
        ((5, 20, 30, 1), 5),
    ],
)
@pytest.mark.parametrize("make", [np.zeros, torch.zeros])
def test_how_many_images_an_array_holds(shape: tuple[int, ...], images: int, make: Any) -> None:
    array = make(shape, dtype=np.uint8 if make is np.zeros else torch.uint8)
    sources = list(as_sources(array))
    assert len(sources) == images
    for source in sources:
        assert open_image(source).image.size == (30, 20)


@pytest.mark.parametrize("shape", [(3, 20, 30), (1, 20, 30), (20, 30, 2), (5, 3, 20, 30), (5, 1, 20, 30)])
def test_shapes_with_two_readings_are_refused(shape: tuple[int, ...]) -> None:
    axes = (1, 2, 0) if len(shape) == 3 else (0, 2, 3, 1)
    wanted = "[H, W, 3]" if len(shape) == 3 else "[N, H, W, 3]"
    line = refusal(np.zeros(shape, dtype=np.uint8))
    assert line.startswith(
        f"images is an array {list(shape)} whose channels are not last; give {wanted} (red, green, blue)"
    )
    assert f"x.transpose{axes}" in line
    assert f"x.permute{axes}" in refusal(torch.zeros(shape, dtype=torch.uint8))


def test_one_element_with_channels_first_is_named() -> None:
    assert refusal([PIXELS, PIXELS.transpose(2, 0, 1)]).startswith("images[1] is an array [3, 20, 30]")


def test_batches_and_columns(file: Path) -> None:
    for column in (
        np.array([str(file)] * 3),
        np.array([file, str(file), PIXELS], dtype=object),
        (str(file),) * 3,
        iter([file] * 3),
    ):
        assert len([open_image(source) for source in as_sources(column)]) == 3
    for empty in ([], np.array([]), np.empty((0, 1), dtype=object)):
        assert list(as_sources(empty)) == []


def test_columns_of_tables(file: Path) -> None:
    """A column has the names of its images, a whole table has columns."""
    table = pyarrow.table({"path": [str(file)] * 3, "label": ["a", "b", "c"]})
    assert list(as_sources(table["path"])) == [file] * 3
    assert refusal(table) == "images is a whole table (Table); give the one column that holds the images"
    assert refusal(pyarrow.table({"label": [0, 1]})).startswith("images is a whole table")
    for one_column in (table.select(["path"]), np.array([[file]] * 3), np.array([[str(file)]] * 3)):
        assert list(as_sources(one_column)) == [file] * 3
    assert refusal(np.array([[str(file)] * 3])) == (
        "images is an array of objects [1, 3]; give one with a single axis or column"
    )


def test_wrong_types_are_named_with_their_place(file: Path) -> None:
    for wrong, words in (
        (None, "images[1] is missing (None)"),
        (float("nan"), "images[1] is missing (nan)"),
        (np.float64("nan"), "images[1] is missing (nan)"),
        (3, "images[1] is of the type int"),
        ({"path": 1}, "images[1] is of the type dict"),
        ([file], "images[1] is of the type list"),
        ("", "images[1] is an empty path"),
        (io.StringIO("text"), "images[1] is a file opened as text; open it with mode 'rb'"),
        (np.zeros(4, dtype=np.uint8), "images[1] is an array of uint8 [4]"),
        (
            torch.zeros(20, 30, 3),
            "images[1] is a tensor of float32 [20, 30, 3]; give uint8 [H, W, 3] (red, green, blue)",
        ),
    ):
        assert refusal([str(file), wrong]).startswith(words)
    for wrong, words in (
        (None, "images is missing"),
        (7, "images is of the type int"),
        ({"a": file}, "images is of the type dict"),
        ({str(file)}, "images is of the type set"),
        (np.zeros((2, 2), dtype=object), "images is an array of objects [2, 2]"),
        (np.zeros((2, 2, 2, 2, 2), dtype=np.uint8), "images is an array [2, 2, 2, 2, 2]"),
        (torch.zeros(3, 20, 30), "images is a tensor of float32 [3, 20, 30]"),
    ):
        assert refusal(wrong).startswith(words)


@pytest.mark.parametrize(
    ("dtype", "way"),
    [
        (np.float32, "(255 * array).round().astype('uint8')"),
        (np.int16, "array.astype('uint8')"),
        (np.int64, "array.astype('uint8')"),
        (np.bool_, "array.astype('uint8') * 255"),
    ],
)
def test_arrays_of_other_types_are_told_how_to_become_images(dtype: type, way: str) -> None:
    with pytest.raises(ImageError) as caught:
        seen(np.zeros((4, 4, 3), dtype=dtype))
    assert way in str(caught.value)
    assert "[H, W, 3] (red, green, blue)" in str(caught.value)


def test_masked_values_are_refused_and_an_empty_mask_is_none() -> None:
    masked = np.ma.MaskedArray(PIXELS, mask=PIXELS > 250)
    with pytest.raises(ImageError, match=r"some values are masked; fill them first: array\.filled\(0\)"):
        seen(masked)
    np.testing.assert_array_equal(seen(np.ma.MaskedArray(PIXELS)), PIXELS)


def test_bytes_that_are_no_image() -> None:
    with pytest.raises(ImageError, match=r"^images\[0\]: the content is not a readable image"):
        open_image(as_source(b"this is text"), "images[0]")
    with pytest.raises(ImageError, match="empty"):
        open_image(as_source(io.BytesIO()))


def test_an_open_file_is_read_from_where_it_stands() -> None:
    content = io.BytesIO()
    Image.new("L", (4, 4), 7).save(content, "PNG")  # leaves the file at its end
    assert as_source(content) == content.getvalue()
    behind = io.BytesIO(b"XXXX" + content.getvalue())
    behind.seek(4)
    assert as_source(behind) == content.getvalue()
