"""A new format is one file, a file's content decides which decoder reads it, and a frame is an image of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biomedcoop.data.images import decoders
from biomedcoop.data.images.content import content_hash
from biomedcoop.data.images.crop_reader import CropReader
from biomedcoop.data.images.decoders.base import START_BYTES, DecodeOptions
from biomedcoop.data.images.reading import open_image
from biomedcoop.data.images.sources import ImageInFile, as_source
from biomedcoop.data.readers.load import load_dataset
from biomedcoop.errors import ImageError

TOY = """
import numpy as np
from biomedcoop.data.images.decoders.base import Decoded
from biomedcoop.data.images.samples import Samples


class Toy:
    name, suffixes = "toy", (".toy",)

    def recognizes(self, start):
        return start.startswith(b"TOY")

    def size(self, file):
        return tuple(file.read(5)[3:])

    def decode(self, content, options):
        width, height = content[3:5]
        samples = Samples(np.frombuffer(content[5:], np.uint8).reshape(height, width))
        return Decoded(samples, samples.mode)


DECODERS = (Toy(),)
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder with one file more beside the package's own decoders."""
    caches = (decoders.all_decoders, decoders.image_suffixes)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "toy.py").write_text(TOY)
    monkeypatch.setattr(decoders, "__path__", [*decoders.__path__, str(tmp_path / "more")])
    for cached in caches:
        cached.cache_clear()
    yield
    sys.modules.pop("biomedcoop.data.images.decoders.toy")
    for cached in caches:
        cached.cache_clear()


def film(path: Path) -> Path:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return path


@pytest.mark.usefixtures("toy")
def test_a_format_is_one_file(tmp_path: Path) -> None:
    for name, values in (("a", [9, 9, 9, 9, 9, 9]), ("b", [1, 2, 3, 4, 5, 6])):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "1.toy").write_bytes(b"TOY\x03\x02" + bytes(values))
    data = load_dataset(tmp_path / "data", for_training=False)
    assert data.class_names == ("a", "b")
    opened = open_image(data.images[1])
    assert np.asarray(opened.image)[..., 0].tolist() == [[1, 2, 3], [4, 5, 6]]
    with pytest.raises(ImageError, match="3 × 2 pixels are more than the limit"):
        open_image(data.images[1], max_pixels=5)


def test_each_format_is_known_by_one_decoder(tmp_path: Path) -> None:
    picture = Image.fromarray(np.arange(24 * 32, dtype=np.uint16).reshape(24, 32).astype(np.uint8))
    for suffix in decoders.image_suffixes():
        if suffix in (".pfm", ".dcm", ".dicom", ".nii", ".nii.gz", ".nrrd"):
            continue  # Pillow does not write them
        path = tmp_path / f"scan{suffix}"
        picture.convert("1" if suffix == ".pbm" else "L").save(path, **({"format": "JPEG"} if suffix == ".jpe" else {}))
        start = path.read_bytes()[:START_BYTES]
        names = [decoder.name for decoder in decoders.all_decoders() if decoder.recognizes(start)]
        assert len(names) == 1, (suffix, names)
        assert suffix in decoders.find_decoder(start).suffixes  # type: ignore[union-attr]


@pytest.mark.parametrize("suffix", ["gif", "tif", "png", "webp"])
def test_a_frame_is_an_image_of_its_own(tmp_path: Path, suffix: str) -> None:
    path = film(tmp_path / f"film.{suffix}")
    frames = [ImageInFile(path, DecodeOptions(frame=number)) for number in range(3)]
    colours = [np.asarray(open_image(as_source(frame)).image)[0, 0].argmax() for frame in frames]
    assert colours == [0, 1, 2]
    hashes = [content_hash(frame) for frame in frames]
    assert hashes == [open_image(frame).digest for frame in frames]
    assert len(set(hashes)) == 3
    assert hashes[0] == content_hash(path)
    for number in (3, -1):
        with pytest.raises(
            ImageError, match=rf"film.{suffix}#{number}: .*frame {number} was requested, but the file has 3"
        ):
            open_image(ImageInFile(path, DecodeOptions(frame=number)))


def test_pages_of_a_deep_tiff(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.array([[0, top]], dtype=np.uint16)) for top in (255, 4095)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    opened = [open_image(ImageInFile(tmp_path / "stack.tif", DecodeOptions(frame=n))) for n in (0, 1)]
    assert [one.facts.depth for one in opened] == [8, 12]
    assert [np.asarray(one.image)[0, 1, 0] for one in opened] == [255, 255]


@pytest.mark.parametrize("as_bytes", [False, True])
def test_workers_read_the_frame_that_is_asked_for(tmp_path: Path, as_bytes: bool) -> None:
    path = film(tmp_path / "film.gif")
    source = ImageInFile(path.read_bytes() if as_bytes else path, DecodeOptions(frame=2))
    with CropReader(4, workers=0) as here, CropReader(4, workers=1) as there:
        expected, found = here(source), there(source)
    np.testing.assert_array_equal(found.crops[0], expected.crops[0])
    assert (found.digest, found.facts) == (expected.digest, expected.facts)
    assert found.crops[0][0, 0].argmax() == 2
