"""Facts about images: told again by a run that decodes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biomedcoop.backbones.base import Backbone
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.crops import Crops
from biomedcoop.data.images.facts import ImageFacts, Tally
from biomedcoop.data.images.sources import as_source
from biomedcoop.errors import ImageError
from biomedcoop.features.facts import image_facts
from biomedcoop.features.images import encode_images, encode_views
from features.scans import dataset, feature_spaces

PLAIN = Crops()


def deep_files(folder: Path) -> list[Path]:
    """Six 16-bit files at 10 and 12 bits, a black one and a film."""
    folder.mkdir()
    ramp = np.tile(np.arange(0, 1000, 25, dtype=np.uint16), (40, 1))
    paths = []
    for number in range(6):
        ramp[0, :2] = 1023 + number % 2, number
        paths.append(folder / f"{number}.png")
        Image.fromarray(ramp).save(paths[-1])
    Image.new("L", (40, 40)).save(folder / "6.png")
    Image.effect_noise((40, 40), 50).save(folder / "7.gif", save_all=True, append_images=[Image.new("L", (40, 40))])
    return [*paths, folder / "6.png", folder / "7.gif"]


EXPECTED = [
    *[ImageFacts(10, True), ImageFacts(12, True)] * 3,
    ImageFacts(one_colour=True),
    ImageFacts(several_frames=True),
]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_warm_run_tells_of_images_what_the_first_one_told(
    tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    data, store = dataset(deep_files(tmp_path / "scans")), tmp_path / "store"
    cold, warm, views = Tally(), Tally(), Tally()
    encode_images(tiny, data, store_root=store, workers=workers, tally=cold)
    assert len(cold.notes()) == 3
    assert "3 at 10 bits (first 0.png), 3 at 12 bits (first 1.png)" in cold.notes()[0]
    encode_views(tiny, data, PLAIN, 2, store_root=store, workers=workers)
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", None)  # nothing is decoded any more
        encode_images(tiny, data, store_root=store, workers=workers, tally=warm)
        encode_views(tiny, data, PLAIN, 2, store_root=store, workers=workers, tally=views)
        assert image_facts(data, store_root=store, workers=workers) == EXPECTED
    assert warm.notes() == views.notes() == cold.notes()


def test_facts_need_no_features_and_are_decoded_where_they_lack(tiny: Backbone, tmp_path: Path) -> None:
    data = dataset(deep_files(tmp_path / "scans"))
    assert image_facts(data, store_root=tmp_path / "facts") == EXPECTED
    assert feature_spaces(tmp_path / "facts") == []
    store = tmp_path / "store"
    encode_images(tiny, data, store_root=store)
    for path in store.rglob("*.safetensors"):
        if "fingerprint" not in (path.parent / "space.json").read_text():
            path.unlink()
    tally = Tally()
    encode_images(tiny, data, store_root=store, tally=tally)
    assert len(tally.notes()) == 3
    assert image_facts(dataset([]), store_root=store) == []


def test_facts_of_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    paths = deep_files(tmp_path / "scans")
    paths[3].write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"3\.png: the content is not a readable image"):
        image_facts(dataset(paths), store_root=tmp_path / "store")


def test_images_of_a_dataset_may_be_bytes_and_pillow_images(tiny: Backbone, tmp_path: Path) -> None:
    paths = deep_files(tmp_path / "scans")
    expected = encode_images(tiny, dataset(paths), store_root=tmp_path / "files")
    given = [as_source(item) for item in (paths[0].read_bytes(), Image.open(paths[1]), str(paths[2]))]
    data = Dataset("scans", ("only",), given, ("a", "b", "c"), np.zeros(3, dtype=np.int64), np.full(3, "train"))
    np.testing.assert_array_equal(encode_images(tiny, data, store_root=tmp_path / "given"), expected[:3])
