"""The one walk through folders: sorted, each real folder once, and what is left out is counted."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from biomedcoop.data.images.decoders import image_suffixes, unread_suffixes
from biomedcoop.data.readers.load import load_dataset
from biomedcoop.data.readers.unlabelled import find_images
from biomedcoop.data.readers.walk import ZIP_RULE, Walk
from biomedcoop.errors import UserError

Draw = Callable[[Path], Path]


def found(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in Walk().images(folder)]


def notes(folder: Path) -> list[str]:
    walk = Walk()
    list(walk.images(folder))
    return walk.notes(folder.name)


@pytest.fixture
def scans(tmp_path: Path, draw: Draw) -> Path:
    for place in ("b/2.png", "b/deep/1.png", "a.png"):
        draw(tmp_path / "scans" / place)
    return tmp_path / "scans"


def test_images_in_order_without_what_systems_made(scans: Path, draw: Draw) -> None:
    for place in (
        "@eaDir/a.png/THUMB.jpg",
        "b/@eaDir/x.png",
        "$RECYCLE.BIN/x.png",
        "lost+found/x.png",
        "b/._2.png",
        ".x/x.png",
    ):
        draw(scans / place)
    (scans / "Thumbs.db").touch()
    assert found(scans) == ["a.png", "b/2.png", "b/deep/1.png"]
    assert notes(scans) == []


def test_links_that_lead_back_end_there(scans: Path) -> None:
    before = found(scans)
    (scans / "b" / "loop").symlink_to("..")
    (scans / "b" / "deep" / "self").symlink_to(".")
    (scans / "b" / "deep" / "far").symlink_to(scans.parent)
    assert found(scans) == before
    assert [path.name for path in Walk().folders(scans)] == ["b"]
    (scans / "round").symlink_to(scans)
    assert [path.name for path in Walk().folders(scans)] == ["b"]


def test_a_linked_folder_is_read_once(scans: Path, draw: Draw, tmp_path: Path) -> None:
    draw(tmp_path / "elsewhere" / "3.png")
    (scans / "a link").symlink_to(tmp_path / "elsewhere")
    (scans / "another").symlink_to(tmp_path / "elsewhere")
    (scans / "b again").symlink_to(scans / "b")
    assert found(scans) == ["a.png", "b/2.png", "b/deep/1.png", "a link/3.png"]


def test_a_folder_of_two_classes_is_refused(scans: Path) -> None:
    (scans / "b" / "more").symlink_to(scans / "b" / "deep")
    walk = Walk()
    list(walk.images(scans / "b" / "deep", "cyst"))
    with pytest.raises(
        UserError, match="are the same folder, but stand for different classes or splits; remove the link"
    ):
        list(walk.images(scans / "b" / "more", "tumor"))


def test_masks_are_left_out_and_said(scans: Path, draw: Draw) -> None:
    for place in ("b/2_mask.png", "b/2_mask_1.png", "b/deep/masks/1.png", "b/deep/masks/notes.txt"):
        draw(scans / place) if place.endswith("png") else (scans / place).touch()
    assert found(scans) == ["a.png", "b/2.png", "b/deep/1.png"]
    assert notes(scans) == [
        "2 masks beside the images in scans were left out, first b/2_mask.png",
        "the folder masks in deep holds masks and was left out (files: 2)",
    ]


@pytest.mark.parametrize("beside", ["images/1.jpg", "imagesTr/1.png", "train/benign/1.png"])
def test_folders_of_masks_beside_images_or_training_images(tmp_path: Path, draw: Draw, beside: str) -> None:
    draw(tmp_path / beside)
    draw(tmp_path / "masks" / "benign" / "1.png")
    assert found(tmp_path) == [beside]
    assert found(tmp_path / "masks") == ["benign/1.png"]  # asked for by name


def test_a_class_may_be_called_mask(tmp_path: Path, draw: Draw) -> None:
    for place in ("mask/1.png", "no_mask/1.png", "cover.png"):
        draw(tmp_path / place)
    assert found(tmp_path) == ["cover.png", "mask/1.png", "no_mask/1.png"]


def test_other_files_are_counted_by_suffix(scans: Path) -> None:
    for name in ("x.txt", "y.TXT", "v.xyz", "b/none", "b/e.e", "b/f.f", "b/g.g"):
        (scans / name).write_text("x")
    assert notes(scans) == [
        "7 files in scans are not images and were ignored (.txt: 2, .xyz: 1, .e: 1, .f: 1, .g: 1, …)"
    ]


@pytest.fixture
def no_volumes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without the packages for volumes."""
    monkeypatch.setattr("biomedcoop.data.images.decoders.volume.find_spec", lambda name: None)
    for remembered in (image_suffixes, unread_suffixes):
        remembered.cache_clear()
    yield
    for remembered in (image_suffixes, unread_suffixes):
        remembered.cache_clear()


def refusal(read: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as caught:
        read()
    return str(caught.value)


def test_files_that_a_missing_package_would_read_are_named_with_it(
    no_volumes: None, tmp_path: Path, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In folders, zip archives and class folders, with and without other images beside them."""
    one = "1 file in {} needs a package that is not here and was ignored (.nii.gz: 1): pip install nibabel"
    both = "3 files in {} need a package that is not here and were ignored (.nii.gz: 2, .nrrd: 1): pip install nibabel SimpleITK"
    for place in ("scans/a/1.nii.gz", "scans/b/2.nii.gz", "scans/b/3.nrrd"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(b"x")
    with zipfile.ZipFile(tmp_path / "scans.zip", "w") as archive:
        for file in sorted((tmp_path / "scans").rglob("*.*")):
            archive.write(file, file.relative_to(tmp_path / "scans"))
    for name in ("scans", "scans.zip"):
        for read in (lambda source: list(find_images([source])), load_dataset):
            line = refusal(lambda read=read, name=name: read(tmp_path / name))
            assert line.endswith(f"that can be read here: {both.format(name)}")
    assert refusal(lambda: load_dataset(tmp_path / "scans" / "a")).endswith(one.format("a"))
    draw(tmp_path / "scans" / "b" / "1.png")
    assert refusal(lambda: load_dataset(tmp_path / "scans")).endswith(f"needs at least two; {both.format('scans')}")
    draw(tmp_path / "scans" / "c" / "1.png")
    assert refusal(lambda: load_dataset(tmp_path / "scans")).endswith(f"can be read; {one.format('a')}")
    draw(tmp_path / "scans" / "a" / "1.png")
    (tmp_path / "scans" / "a" / "notes.txt").write_text("x")
    told = ["1 file in scans is not an image and was ignored (.txt: 1)", both.format("scans")]
    assert sorted(notes(tmp_path / "scans")) == told
    assert set(told) <= set(load_dataset(tmp_path / "scans").notes)


@pytest.mark.parametrize("name", ["x.dcm", "IM0001", "1.2.840.99"])
def test_dicom_is_known_by_its_content(scans: Path, name: str) -> None:
    """Scanners write files without ending, or with the last number of an identifier as one."""
    (scans / name).write_bytes(b"\0" * 128 + b"DICM")
    assert name in found(scans)
    assert notes(scans) == []


def test_zip_archives_are_folders_where_nothing_else_is(scans: Path) -> None:
    """An archive beside what was unpacked from it would bring each image twice."""
    (scans / "exams").mkdir()
    for place in ("copy.zip", "exams/one.zip"):
        with zipfile.ZipFile(scans / place, "w") as archive:
            archive.write(scans / "a.png", "inner/a.png")
            archive.writestr("__MACOSX/a.png", b"x")
    assert [name for name in found(scans) if ".zip" in name] == ["exams/one.zip/inner/a.png"]
    assert notes(scans) == [f"1 file in scans is not an image and was ignored (.zip: 1); {ZIP_RULE}"]


def test_links_that_lead_nowhere(scans: Path) -> None:
    (scans / "gone").symlink_to(scans / "none")
    (scans / "gone.png").symlink_to("gone.png")
    assert found(scans)[:2] == ["a.png", "gone.png"]  # reading it says what is wrong, or --skip-bad leaves it out
    assert notes(scans) == ["2 links in scans lead nowhere, first gone"]


def test_a_folder_that_may_not_be_read(scans: Path) -> None:
    (scans / "b").chmod(0)
    root = os.geteuid() == 0
    try:
        if root:  # who may read everything
            os.seteuid(65534)
        with pytest.raises(
            UserError, match=r"the folder cannot be read \(Permission denied\); change its access rights"
        ):
            found(scans)
    finally:
        if root:
            os.seteuid(0)
        (scans / "b").chmod(0o755)


@pytest.mark.parametrize("place", [b"b/b\xe4d.png", b"b\xe4d/1.png"])
def test_names_that_are_no_utf8(scans: Path, draw: Draw, place: bytes) -> None:
    draw(scans / os.fsdecode(place))
    with pytest.raises(
        UserError, match=r"b\\udce4d.*the name is not UTF-8, so no table or report can hold it; rename it"
    ) as caught:
        found(scans)
    str(caught.value).encode()


def test_a_file_that_is_left_out_may_have_any_name(scans: Path) -> None:
    (scans / os.fsdecode(b"x.\xe4")).touch()
    (note,) = notes(scans)
    assert r"'.\udce4': 1" in note
