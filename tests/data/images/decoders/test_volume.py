"""Slices of NIfTI and NRRD volumes, and without a library the line that names it."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from biomedcoop.data.images.decoders.base import DecodeOptions, Refused
from biomedcoop.data.images.decoders.volume import VolumeDecoder
from biomedcoop.data.images.reading import open_image
from biomedcoop.data.images.sources import ImageInFile
from biomedcoop.data.images.stacks import Reading, facts_of
from biomedcoop.data.images.windows import ASKED, PERCENTILES
from biomedcoop.data.readers.unlabelled import ListedImage, find_images
from biomedcoop.errors import ImageError


def nifti(
    values: np.ndarray, spacing: tuple[float, float, float] = (1, 1, 1), flip: tuple[int, int, int] = (1, 1, 1)
) -> bytes:
    """A NIfTI-1 file of int16 values [x, y, z], x to the patient's right or, flipped, to the left, and so on."""
    header = bytearray(348)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *values.shape, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 4, 16)
    struct.pack_into("<8f", header, 76, 1, *spacing, 1, 1, 1, 1)
    struct.pack_into("<3f", header, 108, 352, 1, 0)
    struct.pack_into("<2h", header, 252, 0, 1)  # the matrix below holds
    for axis in range(3):
        row = [0.0] * 4
        row[axis] = spacing[axis] * flip[axis]
        struct.pack_into("<4f", header, 280 + 16 * axis, *row)
    header[344:348] = b"n+1\0"
    return bytes(header) + b"\0" * 4 + values.astype("<i2").tobytes(order="F")


def nrrd(
    values: np.ndarray,
    spacing: tuple[float, float, float] = (1, 1, 1),
    flip: tuple[int, int, int] = (1, 1, 1),
    encoding: str = "raw",
    **fields: str,
) -> bytes:
    """An NRRD file of int16 values [x, y, z], x to the patient's left or, flipped, to the right, and so on."""
    axes = (np.diag(spacing) * flip).tolist()
    lines = {
        "type": "short",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": " ".join(map(str, values.shape)),
        "space directions": " ".join(f"({x},{y},{z})" for x, y, z in axes),
        "kinds": "domain domain domain",
        "endian": "little",
        "encoding": encoding,
        "space origin": "(0,0,0)",
    } | {name.replace("_", " "): value for name, value in fields.items()}
    content = values.astype("<i2").tobytes(order="F")
    header = "NRRD0004\n" + "".join(f"{name}: {value}\n" for name, value in lines.items()) + "\n"
    return header.encode() + (gzip.compress(content) if encoding == "gzip" else content)


@pytest.fixture
def values() -> np.ndarray:
    return np.arange(4 * 5 * 3, dtype=np.int16).reshape(4, 5, 3) * 10


@pytest.mark.parametrize("packed", [False, True])
def test_a_missing_library_is_named(
    tmp_path: Path, values: np.ndarray, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("biomedcoop.data.images.decoders.volume.find_spec", lambda name: None)
    content = nifti(values)
    path = tmp_path / "brain.nii.gz"
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(ImageError, match=r"brain.nii.gz: NIfTI needs nibabel or SimpleITK: pip install nibabel"):
        open_image(path)
    assert VolumeDecoder("NIfTI", (".nii",), ("nibabel",)).suffixes == ()
    (tmp_path / "a.nrrd").write_bytes(b"NRRD0004\ntype: short\n")
    with pytest.raises(ImageError, match=r"NRRD needs SimpleITK: pip install SimpleITK"):
        open_image(tmp_path / "a.nrrd")


@pytest.mark.parametrize("flip", [(1, 1, 1), (-1, -1, 1)])
def test_slices_are_drawn_as_radiologists_look_at_them(values: np.ndarray, flip: tuple[int, int, int]) -> None:
    """Axial, the patient's right on the left and anterior at the top, whichever way the values are stored."""
    content = gzip.compress(nifti(values, flip=flip))
    picture = np.asarray(open_image(ImageInFile(content, DecodeOptions(1, "300,600"))).image)[..., 0]
    to_right_anterior = values[:: flip[0], :: flip[1], 1]
    expected = to_right_anterior[::-1, ::-1].T / 600 * 255
    assert np.abs(picture - expected).max() <= 0.5


@pytest.mark.parametrize("flip", [(1, 1, 1), (-1, -1, 1)])
def test_simpleitk_draws_nifti_as_nibabel_does(values: np.ndarray, flip: tuple[int, int, int]) -> None:
    content = nifti(values, (1, 2, 5), flip)
    one, other = (
        VolumeDecoder("NIfTI", (".nii",), (library,)).decode(content, DecodeOptions(1, "300,600"))
        for library in ("SimpleITK", "nibabel")
    )
    assert (np.asarray(one.pixels) == np.asarray(other.pixels)).all()
    assert one.pixel_aspect == other.pixel_aspect == 2


@pytest.mark.parametrize("flip", [(1, 1, 1), (-1, -1, 1)])
@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_slices_of_nrrd(values: np.ndarray, flip: tuple[int, int, int], encoding: str) -> None:
    content = nrrd(values, (1, 2, 5), flip, encoding)
    picture = VolumeDecoder("NRRD", (".nrrd",), ("SimpleITK",)).decode(content, DecodeOptions(1, "300,600"))
    expected = values[:: flip[0], :: flip[1], 1].T / 600 * 255
    assert np.abs(np.asarray(picture.pixels) - expected).max() <= 0.5
    assert picture.pixel_aspect == 2
    opened = open_image(ImageInFile(content, DecodeOptions(0, "lung")))
    assert opened.image.size == (4, 10)
    assert opened.facts.window == ASKED


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("library", ["nibabel", "SimpleITK"])
@pytest.mark.parametrize(("slope", "intercept"), [(np.inf, 0), (1, np.inf), (1, -np.inf), (3.4e38, 3.4e38)])
def test_a_scale_that_overflows_is_refused(values: np.ndarray, library: str, slope: float, intercept: float) -> None:
    content = bytearray(nifti(values))
    struct.pack_into("<2f", content, 112, slope, intercept)
    decoder = VolumeDecoder("NIfTI", (".nii",), (library,))
    with pytest.raises(Refused, match=r"scl_slope (or|and) .*scl_inter"):
        decoder.decode(bytes(content), DecodeOptions(1))


@pytest.mark.filterwarnings("error")
def test_floats_of_any_size_are_drawn_or_refused_without_a_warning() -> None:
    steps = np.linspace(-1, 1, 4 * 5 * 3).reshape(4, 5, 3)
    decoder = VolumeDecoder("NRRD", (".nrrd",), ("SimpleITK",))
    head = nrrd(np.zeros((4, 5, 3))).split(b"\n\n")[0]

    def stored(kind: str, values: np.ndarray) -> bytes:
        return head.replace(b"type: short", f"type: {kind}".encode()) + b"\n\n" + values.tobytes(order="F")

    drawn, usual = (
        np.asarray(decoder.decode(stored("float", (steps * top).astype("<f4")), DecodeOptions(1)).pixels)
        for top in (3e38, 1)
    )
    assert np.abs(drawn.astype(int) - usual).max() <= 1
    with pytest.raises(Refused, match=r"it holds values above 3.4e38; copy"):
        decoder.decode(stored("double", (steps * 1e308).astype("<f8")), DecodeOptions(1))


def test_faulty_nrrd_files_are_one_line(values: np.ndarray, tmp_path: Path) -> None:
    content = nrrd(values)
    (tmp_path / "a.nrrd").write_bytes(content)
    found = list(find_images([tmp_path], reading=Reading(frame="middle")))
    assert [one.path for one in found if isinstance(one, ListedImage)] == [f"{tmp_path}/a.nrrd#1"]
    for faulty, words in (
        (content[:-50], "the NRRD file is damaged"),
        (nrrd(values, encoding="gzip")[:-20], "the NRRD file is damaged"),
        (content[:60], "the NRRD file is damaged"),
        (nrrd(values, data_file="other.raw"), "stand in another file; give the volume as one file"),
        (nrrd(values, sizes="30000 30000 30000"), "is not read; give single volumes of grey values"),
        (nrrd(values, kinds="RGB-color domain domain"), "the NRRD file is damaged"),  # of four colours
        (nrrd(values, (30, 1, 1)), "more than twenty times"),
    ):
        with pytest.raises(ImageError, match=words) as caught:
            open_image(faulty, "scan")
        assert "\n" not in str(caught.value)
        assert "/tmp" not in str(caught.value)


def test_windows_and_pixels_of_a_volume(values: np.ndarray) -> None:
    opened = open_image(nifti(values, (1, 2, 5)))
    assert opened.image.size == (4, 10)
    assert opened.facts.window == PERCENTILES
    darkest = np.asarray(open_image(ImageInFile(nifti(values), DecodeOptions(0))).image).min()
    assert (
        darkest < np.asarray(open_image(ImageInFile(nifti(values), DecodeOptions(2))).image).min()
    )  # one scale for all slices
    assert open_image(ImageInFile(nifti(values), DecodeOptions(0, "lung"))).facts.window == ASKED


def test_bombs_are_refused_before_they_are_unpacked(values: np.ndarray) -> None:
    content = nifti(values)
    huge = bytearray(content)
    struct.pack_into("<8h", huge, 40, 3, 32000, 32000, 32000, 1, 1, 1, 1)
    for faulty in (bytes(huge), gzip.compress(bytes(huge))):
        with pytest.raises(
            ImageError, match=r"its header states 65,536,000,000,352 bytes of values, more than the limit"
        ):
            open_image(faulty)
    bomb = gzip.compress(content + bytes(2**26))
    tracemalloc.start()
    try:
        found = open_image(ImageInFile(bomb, DecodeOptions(1)))
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
    assert (np.asarray(found.image) == np.asarray(open_image(ImageInFile(content, DecodeOptions(1))).image)).all()


def test_slices_of_files_for_prediction(tmp_path: Path, values: np.ndarray) -> None:
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(nifti(values)))
    found = list(find_images([tmp_path], reading=Reading(frame="middle")))
    assert [one.path for one in found if isinstance(one, ListedImage)] == [f"{tmp_path}/a.nii.gz#1"]
    assert len(list(find_images([tmp_path]))) == 3


def test_faulty_volumes_are_one_line(values: np.ndarray) -> None:
    content = nifti(values)
    four = bytearray(nifti(np.zeros((2, 2, 6), dtype=np.int16)))
    struct.pack_into("<8h", four, 40, 4, 2, 2, 2, 3, 1, 1, 1)
    # float32 has half as many values in the same bytes
    no_number = bytearray(nifti(np.zeros((8, 4, 3), dtype=np.int16)))
    struct.pack_into("<8h", no_number, 40, 3, 4, 4, 3, 1, 1, 1, 1)
    struct.pack_into("<2h", no_number, 70, 16, 32)
    no_number[352:] = np.full(48, np.nan, dtype="<f4").tobytes()
    for faulty, words in (
        (content[:380], "damaged"),
        (gzip.compress(content)[:90], "damaged"),
        (bytes(four), r"a volume of the shape \[2, 2, 2, 3\] is not read; give single volumes"),
        (nifti(values, (0, 0, 0)), "damaged|states no distance"),
        (nifti(values, (30, 1, 1)), "more than twenty times"),
        (bytes(no_number), "no voxel has a finite value; leave it out"),
    ):
        facts_of(faulty)  # raises nothing: the decoding reports the fault
        with pytest.raises(ImageError, match=words):
            open_image(faulty)
    with pytest.raises(ImageError, match="no windows of its own to choose from"):
        open_image(ImageInFile(content, DecodeOptions(0, "file:bone")))
