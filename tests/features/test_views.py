"""Random crops through the store: the right ones, each computed once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from biomedcoop.backbones.base import Backbone
from biomedcoop.data.images.crops import Crops
from biomedcoop.data.images.reading import open_image
from biomedcoop.errors import ImageError
from biomedcoop.features.images import encode_images, encode_views
from features.scans import dataset, feature_spaces, pictures, write

PLAIN = Crops()


def test_views_are_crops_of_their_images(tiny: Backbone, tmp_path: Path) -> None:
    paths = write(tmp_path / "scans", pictures(5))
    found = encode_views(tiny, dataset(paths), Crops(), 3, store_root=tmp_path / "store")
    assert found.shape == (5, 3, tiny.embed_dim)
    for i, path in enumerate(paths):
        opened = open_image(path)
        cut = np.stack([Crops().cut(opened.image, tiny.image_size, opened.digest, number) for number in range(3)])
        with torch.no_grad():
            expected = tiny.encode_image(tiny.normalize(cut)).numpy()
        np.testing.assert_allclose(found[i], expected, atol=1e-5, rtol=0)


def test_each_view_is_encoded_once(tiny: Backbone, tmp_path: Path, passes: list[int]) -> None:
    images, told = pictures(4), []

    def encode(n: int, views: int, crops: Crops = PLAIN) -> npt.NDArray[np.float32]:
        told.clear()
        passes.clear()
        return encode_views(
            tiny, dataset(images[:n]), crops, views, store_root=tmp_path, progress=lambda *now: told.append(now)
        )

    few = encode(3, 2)
    assert told[-1] == (6, 6)
    np.testing.assert_array_equal(encode(3, 2), few)
    assert not passes
    more = encode(4, 4)  # two more of three images, four of a new one
    assert told[-1] == (10, 10)
    np.testing.assert_array_equal(more[:3, :2], few)
    other = encode(3, 2, Crops(0.5, 0.5))
    assert told[-1] == (6, 6)
    assert (other != few).any(axis=2).all()
    # the centre crop is none of them
    encode_images(tiny, dataset(images[:3]), store_root=tmp_path, progress=lambda *now: told.append(now))
    assert told[-1] == (3, 3)


def test_an_image_is_read_once_for_all_its_views(
    tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    real = Image.open
    paths = write(tmp_path / "scans", pictures(3))
    monkeypatch.setattr(Image, "open", lambda file, **rest: opened.append(file) or real(file, **rest))
    encode_views(tiny, dataset(paths), Crops(), 1, store_root=tmp_path / "one")
    once = len(opened)
    encode_views(tiny, dataset(paths), Crops(), 6, store_root=tmp_path / "six")
    assert len(opened) == 2 * once


def test_views_of_an_image_that_cannot_be_read(tiny: Backbone, tmp_path: Path) -> None:
    paths, store = write(tmp_path / "scans", pictures(6)), tmp_path / "store"
    whole = paths[4].read_bytes()
    paths[4].write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r"04\.png: the file is truncated"):
        encode_views(tiny, dataset(paths), Crops(), 4, store_root=store)
    assert feature_spaces(store)[0].vectors == 16
    assert encode_views(tiny, dataset([]), Crops(), 4, store_root=store).shape == (0, 4, tiny.embed_dim)
