"""Random crops: decided by content and number alone, spread as the published augmentation's are."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image

from biomedcoop.data.images.crops import ASPECT_RATIOS, Crops
from biomedcoop.data.images.reading import open_image


def picture(width: int, height: int) -> Image.Image:
    """Red grows to the right, green to the bottom."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([255 * x / max(width - 1, 1), 255 * y / max(height - 1, 1), 0 * x], axis=-1)
    return Image.fromarray(pixels.round().astype(np.uint8))


@pytest.mark.parametrize("smallest", [0.08, 0.5])
@pytest.mark.parametrize("size", [(500, 400), (64, 64)])
def test_area_and_shape_of_boxes(smallest: float, size: tuple[int, int]) -> None:
    draw, (width, height) = random.Random(0), size
    boxes = np.array([Crops(smallest).box(width, height, draw) for _ in range(4000)])
    left, top, right, bottom = boxes.T
    assert ((left >= 0) & (top >= 0) & (right <= width) & (bottom <= height)).all()
    area, ratio = (right - left) * (bottom - top) / (width * height), (right - left) / (bottom - top)
    assert smallest - 0.02 < area.min() < smallest + 0.03
    assert area.max() > 0.95
    assert ASPECT_RATIOS[0] - 0.1 < ratio.min() < ASPECT_RATIOS[0] + 0.05
    assert ASPECT_RATIOS[1] - 0.05 < ratio.max() < ASPECT_RATIOS[1] + 0.1
    # large boxes of an extreme shape do not fit and are drawn again
    assert abs(np.log(ratio)).mean() == pytest.approx(np.log(4 / 3) / 2, rel=0.2)
    assert abs((left + right).mean() / 2 - width / 2) < 0.03 * width


@pytest.mark.parametrize(("width", "height"), [(4000, 10), (10, 4000), (1, 1), (3, 2)])
def test_images_of_any_shape(width: int, height: int) -> None:
    """Where no drawn box fits, the largest centre piece of an allowed shape is taken."""
    for number in range(5):
        assert Crops().cut(picture(width, height), 32, b"d" * 32, number).shape == (32, 32, 3)
    left, top, right, bottom = Crops().box(4000, 10, random.Random(1))
    assert (right - left, bottom - top) == (13, 10)
    assert (left, top) == (1993, 0)


def test_a_crop_is_decided_by_content_and_number() -> None:
    image, crops = picture(80, 60), Crops()
    first = crops.cut(image, 32, b"a" * 32, 3)
    np.testing.assert_array_equal(first, crops.cut(image, 32, b"a" * 32, 3))
    assert (first != crops.cut(image, 32, b"a" * 32, 4)).any()
    assert (first != crops.cut(image, 32, b"b" * 32, 3)).any()
    assert len({Crops.key(bytes([d]) * 32, n) for d in range(20) for n in range(20)}) == 400


def test_what_is_cut_is_what_the_box_says() -> None:
    image, crops = picture(256, 256), Crops()
    for number in range(20):
        draw = random.Random(int.from_bytes(Crops.key(b"x" * 32, number), "big"))
        left, top, right, bottom = crops.box(256, 256, draw)
        cut = crops.cut(image, 64, b"x" * 32, number).astype(float)
        assert cut[..., 0].min() == pytest.approx(left, abs=3)
        assert cut[..., 0].max() == pytest.approx(right - 1, abs=3)
        assert cut[..., 1].min() == pytest.approx(top, abs=3)
        assert cut[..., 1].max() == pytest.approx(bottom - 1, abs=3)


def test_mirrored() -> None:
    def is_mirrored(crops: Crops, number: int) -> bool:
        red = crops.cut(picture(64, 64), 32, b"m" * 32, number)[..., 0].mean(0)
        return bool(red[0] > red[-1])

    assert 70 < sum(is_mirrored(Crops(0.5, 0.5), number) for number in range(200)) < 130
    assert not any(is_mirrored(Crops(0.5), number) for number in range(50))


def test_the_same_on_every_machine() -> None:
    """The numbers of one crop, written down: another version of Python or of this package must not draw another one."""
    opened = open_image(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64).astype(np.uint8))
    draw = random.Random(int.from_bytes(Crops.key(opened.digest, 7), "big"))
    assert Crops(0.5, 0.5).box(*opened.image.size, draw) == (7, 3, 58, 44)
