"""Crops read by worker processes are those read here, and so are the errors; nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from biomedcoop.data.images import crop_reader
from biomedcoop.data.images.crop_reader import CropReader
from biomedcoop.data.images.crops import Crops, Resize, resize_and_crop
from biomedcoop.data.images.facts import ImageFacts
from biomedcoop.data.images.reading import open_image
from biomedcoop.errors import ImageError, UserError


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    generator, paths = np.random.default_rng(0), [tmp_path / f"{n}.png" for n in range(12)]
    for path in paths:
        Image.fromarray(generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    return paths


def children() -> set[int]:
    """Processes that this one has started and not yet buried."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,comm="], capture_output=True, text=True, check=True)
    rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
    return {int(pid) for pid, parent, name in rows if int(parent) == os.getpid() and name != "ps"}


@pytest.mark.parametrize("resize", ["shortest", "squash"])
def test_workers_read_what_this_process_reads(resize: Resize, files: list[Path]) -> None:
    with CropReader(32, workers=0, resize=resize) as here, CropReader(32, workers=2, resize=resize) as there:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(there, files))
        for path, (crops, digest, facts) in zip(files, answers, strict=True):
            expected, key, expected_facts = here(path)
            assert (digest, facts) == (key, expected_facts)
            np.testing.assert_array_equal(crops, expected)
            in_memory = there(path.read_bytes())
            assert in_memory[1:] == (digest, facts)
            np.testing.assert_array_equal(in_memory.crops, crops)
            several = there(path, None, Crops(0.5, 0.5), [4, 0, 7])[0]
            np.testing.assert_array_equal(several, here(path, None, Crops(0.5, 0.5), [4, 0, 7])[0])
            assert np.array(several).shape == (3, 32, 32, 3)
        pixels = np.asarray(Image.open(files[0]))
        np.testing.assert_array_equal(there(pixels)[0], here(pixels)[0])


@pytest.mark.parametrize("resize", ["shortest", "squash"])
@pytest.mark.parametrize("form", ["png", "jpg", "tif", "bmp", "transparent.png", "turned.jpg"])
def test_grey_files_give_the_crops_of_their_three_channels(form: str, resize: Resize, tmp_path: Path) -> None:
    """Their one channel is resized instead of three."""
    values = np.random.default_rng(0).integers(0, 256, (70, 91), dtype=np.uint8)
    exif, extra = Image.Exif(), {"transparency": 7} if form.startswith("transparent") else {}
    if form.startswith("turned"):
        exif[ExifTags.Base.Orientation] = 6
        extra = {"exif": exif}
    file = tmp_path / f"scan.{form}"
    Image.fromarray(values).save(file, **extra)
    opened, random_crops = open_image(file), Crops(smallest=0.3, flip=0.5)
    assert opened.image.mode == "RGB"
    reader = CropReader(32, resize=resize)
    np.testing.assert_array_equal(reader(file).crops[0], resize_and_crop(opened.image, 32, resize))
    found = reader(file, crops=random_crops, numbers=range(4)).crops
    expected = [random_crops.cut(opened.image, 32, opened.digest, number) for number in range(4)]
    np.testing.assert_array_equal(found, expected)


def test_errors_and_facts_come_through(files: list[Path]) -> None:
    files[0].write_text("no image")
    Image.open(files[2]).save(files[1].with_suffix(".gif"), save_all=True, append_images=[Image.open(files[3])])
    Image.fromarray(np.full((8, 8), 4095, dtype=np.uint16)).save(files[2])
    refusals = []
    for workers in (0, 1):
        with CropReader(32, workers) as read:
            for where in (None, "scans[0]"):
                with pytest.raises(ImageError) as caught:
                    read(files[0], where)
                refusals.append((str(caught.value), caught.value.where, caught.value.reason))
            assert read(files[1].with_suffix(".gif")).facts == ImageFacts(several_frames=True)
            assert read(files[2]).facts == ImageFacts(depth=12, guessed=True, one_colour=True)
    assert refusals[:2] == refusals[2:]
    assert refusals[1][1] == "scans[0]"


def test_workers_start_when_there_are_many_files(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crop_reader, "available_cores", lambda: crop_reader.MANY_CORES)
    monkeypatch.setattr(crop_reader, "MANY_FILES", 10)
    before = children()
    with CropReader(32) as read:
        assert read.threads == crop_reader.MANY_CORES
        for path in files[:10]:
            read(path)
        assert children() == before
        read(files[10])
        assert len(children() - before) == 1
    assert children() == before


def test_few_cores_start_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crop_reader, "available_cores", lambda: crop_reader.MANY_CORES - 1)
    reader = CropReader(32)
    assert (reader.workers, reader.threads) == (0, crop_reader.MANY_CORES - 1)


def test_a_worker_that_is_ended_from_outside(files: list[Path]) -> None:
    before = children()
    with CropReader(32, workers=1) as read:
        read(files[0])
        (worker,) = children() - before
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(UserError, match=r"1\.png: the worker process that read it was ended from outside, perhaps"):
            read(files[1])
    assert children() == before


def test_a_worker_needs_little() -> None:
    program = "import sys; import biomedcoop.data.images.crop_reader; print([m for m in ('torch', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
