"""Pixels of training images on demand: the crops of the encoder, whatever fits into memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from biomedcoop.backbones.base import Backbone
from biomedcoop.data.images.crops import Crops
from biomedcoop.errors import ImageError
from biomedcoop.features import pixels as module
from biomedcoop.features.images import encode_images
from biomedcoop.features.pixels import SupportPixels
from features.scans import dataset, pictures, write

DRAWS = [np.array([4, 0, 2]), np.array([1, 3, 4])]


def test_centre_crops_are_those_of_the_features(tiny: Backbone) -> None:
    data = dataset(pictures(5))
    of = SupportPixels(tiny, data, DRAWS, Crops())
    with torch.no_grad():
        features = tiny.encode_image(of(1, torch.tensor([2, 0])))
    torch.testing.assert_close(features, torch.from_numpy(encode_images(tiny, data)[[4, 1]]), atol=1e-5, rtol=1e-5)


def test_random_crops_follow_the_generator(tiny: Backbone) -> None:
    def cut(seed: int, room: int = 10**9) -> torch.Tensor:
        of = SupportPixels(tiny, dataset(pictures(5)), DRAWS, Crops(smallest=0.3, flip=0.5), room)
        generator = torch.Generator().manual_seed(seed)
        return torch.stack([of(0, torch.tensor([0, 1]), generator) for _ in range(3)])

    first = cut(1)
    assert torch.equal(first, cut(1))
    assert torch.equal(first, cut(1, room=0)), "what is kept in memory changes nothing"
    assert not torch.equal(first, cut(2))
    assert not torch.equal(first[0], first[1])


def test_images_are_decoded_once_within_the_bound(
    tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, opened = dataset(write(tmp_path / "scans", pictures(5))), []
    real = module.open_image
    monkeypatch.setattr(module, "open_image", lambda source, name: opened.append(name) or real(source, name))
    rows = torch.arange(3)
    of = SupportPixels(tiny, data, DRAWS, Crops())
    for _ in range(3):
        of(0, rows)
    assert len(opened) == 3
    one = max(kept.size for kept in of._kept.values())
    opened.clear()
    small = SupportPixels(tiny, data, DRAWS, Crops(), kept_bytes=2 * one)
    for _ in range(3):
        small(0, rows)
    assert len(opened) == 2 + 3
    assert sum(kept.size for kept in small._kept.values()) <= 2 * one


def test_large_images_are_kept_small(tiny: Backbone) -> None:
    large = np.zeros((1, 600, 900, 3), dtype=np.uint8)
    of = SupportPixels(tiny, dataset(large), [np.array([0])], Crops())
    of(0, torch.tensor([0]))
    assert of._kept[0].image.size == (3 * tiny.image_size, 2 * tiny.image_size)


def test_an_image_that_cannot_be_read_is_named(tiny: Backbone, tmp_path: Path) -> None:
    paths = write(tmp_path / "scans", pictures(2))
    paths[1].write_bytes(b"no image")
    of = SupportPixels(tiny, dataset(paths), [np.array([0, 1])], Crops())
    with pytest.raises(ImageError, match=r"0001\.png"):
        of(0, torch.tensor([0, 1]))
