"""Masks of lesions: drawn, beside the images, and in a folder of their own."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import biomedcoop as bc
from biomedcoop.data.masks import check_masks, find_masks, read_mask
from biomedcoop.data.simulate import draw_scan, write_simulated
from biomedcoop.errors import UserError

NAME = "simulated:kidney-ct?train=2&val=1&test=1&seed=3"


def digest(data: bc.Dataset) -> str:
    return hashlib.sha256(np.asarray(data.images).tobytes()).hexdigest()


def square(left: int, value: int = 255) -> Image.Image:
    pixels = np.zeros((30, 40), dtype=np.uint8)
    pixels[5:10, left : left + 5] = value
    return Image.fromarray(pixels)


@pytest.fixture
def busi(tmp_path: Path) -> Path:
    """Two classes named as in BUSI; one image has two masks, the normal one an empty mask, another none."""
    for name, lefts in (("benign/benign (1)", (5, 20)), ("benign/benign (2)", ()), ("normal/normal (1)", (None,))):
        path = tmp_path / "busi" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((30, 40), 90, dtype=np.uint8)).save(path)
        for number, left in enumerate(lefts):
            mask = Image.new("L", (40, 30)) if left is None else square(left)
            mask.save(path.with_name(f"{path.stem}_mask{f'_{number}' if number else ''}.png"))
    return tmp_path / "busi"


def test_masks_of_simulated_images_are_those_that_were_drawn(tmp_path: Path) -> None:
    data = bc.load_dataset(NAME)
    before, masks = digest(data), find_masks(data)
    assert digest(data) == before == digest(bc.load_dataset(NAME))
    written = write_simulated(NAME, tmp_path / "drawn")
    assert written.keys == data.keys
    for mask, other in zip(masks, find_masks(written), strict=True):
        assert np.array_equal(mask, other)
    pixels, first = draw_scan("kidney-ct", 0, seed=3, index=0)
    assert np.array_equal(np.asarray(data.images)[0], pixels)
    assert np.array_equal(masks[0], first)
    last = data.select([len(data) - 1])
    assert np.array_equal(find_masks(last)[0], masks[-1])


def test_masks_beside_the_images(busi: Path) -> None:
    data = bc.load_dataset(busi)
    assert len(data) == 3, "masks are no images"
    found = dict(zip(data.keys, find_masks(data), strict=True))
    both = found["benign/benign (1).png"]
    assert both is not None
    assert both.sum() == 50
    assert both[5:10, 5:10].all()
    assert both[5:10, 20:25].all()
    assert found["benign/benign (2).png"] is None
    assert not found["normal/normal (1).png"].any()


@pytest.mark.parametrize("name", ["benign/benign (2).png", "benign (2).png", "other/benign (2)_mask.png"])
def test_masks_in_a_folder(busi: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "masks" / name).parent.mkdir(parents=True)
    square(5, 1).save(tmp_path / "masks" / name)
    data = bc.load_dataset(busi)
    found = dict(zip(data.keys, find_masks(data, tmp_path / "masks"), strict=True))
    assert found.pop("benign/benign (2).png").sum() == 25
    assert not any(found.values())


@pytest.mark.parametrize("name", ["0000.png", "0000.bmp", "0000_mask.png"])
@pytest.mark.parametrize("split", ["", "test/"])
def test_only_the_classes_with_lesions_have_masks(tmp_path: Path, name: str, split: str) -> None:
    images, masks = tmp_path / "images", tmp_path / "lesions"
    places = [
        f"{part}{name}" for part in {split, "train/" if split else ""} for name in ("benign_tumor", "normal_scan")
    ]
    for place in places:
        for number, value in enumerate((90, 91)):
            path = images / place / f"000{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (40, 30), value).save(path)
    target = masks / f"{split}benign_tumor" / name
    target.parent.mkdir(parents=True)
    square(5).save(target)
    data = bc.load_dataset(images)
    found = dict(zip(data.keys, find_masks(data, masks), strict=True))
    assert found.pop(f"{split}benign_tumor/0000.jpg").sum() == 25
    assert not any(mask is not None for mask in found.values())
    # images of one class alone do not take the masks of another
    place = data.keys.index(f"{split}normal_scan/0000.jpg")
    assert find_masks(data, masks, [place]) == [None]
    with pytest.raises(UserError, match="no file in it has the name of an image"):
        find_masks(data.select([place]), masks)
    square(5).save(masks / "0001.png")
    with pytest.raises(UserError, match=r"masks of several images are called '0001'; put masks .* e\.g\. .*/0001\.png"):
        find_masks(data, masks)


def test_wrong_folders(busi: Path, tmp_path: Path) -> None:
    data, folder = bc.load_dataset(busi), tmp_path / "masks"
    with pytest.raises(UserError, match="no such folder"):
        find_masks(data, folder)
    (folder / "a").mkdir(parents=True)
    square(5).save(folder / "a" / "else.png")
    with pytest.raises(UserError, match=r"no file in it has the name of an image of busi, e\.g\. benign"):
        find_masks(data, folder)
    (folder / "b").mkdir()
    for held in ("a", "b"):
        square(5).save(folder / held / "benign (1).png")
    with pytest.raises(UserError, match="masks of several images are called 'benign \\(1\\)'"):
        find_masks(data, folder)
    with pytest.raises(UserError, match="images in memory have no file names"):
        find_masks(bc.load_dataset(NAME), folder)


def test_masks_of_a_lossy_format_and_with_few_levels(tmp_path: Path) -> None:
    square(5).save(tmp_path / "lossy.jpg", quality=60)
    Image.fromarray(np.arange(3, dtype=np.uint8)[None]).save(tmp_path / "levels.png")
    assert abs(int(read_mask(tmp_path / "lossy.jpg").sum()) - 25) <= 3
    assert read_mask(tmp_path / "levels.png").tolist() == [[False, True, True]]


def test_a_mask_of_another_size_is_refused(busi: Path) -> None:
    Image.new("L", (20, 30)).save(busi / "benign" / "benign (1)_mask_1.png")
    with pytest.raises(UserError, match=r"the mask of benign \(1\)_mask_1\.png is 20 × 30 px, the image 40 × 30 px"):
        find_masks(bc.load_dataset(busi))
    with pytest.raises(UserError, match=r"the mask of 1\.png is 4 × 3 px, the image 40 × 30 px; give masks"):
        check_masks([np.zeros((3, 4), dtype=bool)], [(30, 40)], ["1.png"])
    with pytest.raises(UserError, match="1 masks for 2 images"):
        check_masks([None], [(30, 40), (30, 40)], ["1.png", "2.png"])
