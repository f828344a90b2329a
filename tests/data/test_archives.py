"""Zip archives are read as folders, member by member, within limits."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

import biomedcoop as bc
from biomedcoop.data import archives
from biomedcoop.data.images.content import content_hash
from biomedcoop.data.images.reading import open_image
from biomedcoop.data.readers.unlabelled import find_images
from biomedcoop.data.readers.walk import ZIP_RULE
from biomedcoop.errors import ImageError, UserError
from dicom_files import series


def packed(folder: Path, to: Path, below: str = "") -> Path:
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, below + file.relative_to(folder).as_posix())
    return to


@pytest.mark.parametrize("below", ["", "export/scans/"])
def test_an_archive_is_read_as_its_folder(discs: Path, tmp_path: Path, below: str) -> None:
    archive = packed(discs, tmp_path / "scans.zip", below)
    data, folder = bc.load_dataset(archive), bc.load_dataset(discs)
    assert (data.name, data.class_names, data.keys) == ("scans", folder.class_names, folder.keys)
    assert (data.labels == folder.labels).all()
    assert [content_hash(one) for one in data.images[:3]] == [content_hash(one) for one in folder.images[:3]]
    assert (np.asarray(open_image(data.images[5]).image) == np.asarray(open_image(folder.images[5]).image)).all()
    assert sorted(tmp_path.iterdir()) == [archive]


def test_a_zipped_series_for_prediction(tmp_path: Path) -> None:
    files = series(tmp_path / "exam", "one", 3)
    archive = packed(tmp_path / "exam", tmp_path / "exam.zip", "DICOM/")
    found = list(find_images([archive]))
    assert found == [archive / "DICOM" / file.name for file in reversed(files)]
    assert open_image(found[0]).facts.window  # type: ignore[arg-type]
    assert list(find_images([archive / "DICOM" / files[0].name])) == [archive / "DICOM" / files[0].name]


def test_faulty_archives(tmp_path: Path) -> None:
    def archive_of(name: str, content: bytes) -> Path:
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, content)
        archives._read_index.cache_clear()
        return tmp_path / "a.zip"

    for name in ("../a.png", "/a.png", "a\\..\\..\\b.png"):
        with pytest.raises(UserError, match="a path that leaves the archive"):
            list(find_images([archive_of(name, b"x")]))
    with pytest.raises(ImageError, match=r"a.zip/no.png: there is no such file"):
        open_image(archive_of("a.png", b"x") / "no.png")
    with pytest.raises(ImageError, match=r"a.zip/a.png: the file is empty"):
        open_image(archive_of("a.png", b"") / "a.png")
    damaged = archive_of("a.png", np.random.default_rng(0).bytes(10_000))
    content = bytearray(damaged.read_bytes())
    content[5000] ^= 255
    damaged.write_bytes(content)
    archives._read_index.cache_clear()
    with pytest.raises(ImageError, match=r"a.zip/a.png: (damaged in the archive|the content is not)"):
        open_image(damaged / "a.png")
    damaged.write_bytes(bytes(content[:-30]))
    with pytest.raises(ImageError, match=r"a.zip: it is a zip archive; .* it is damaged: copy it again"):
        open_image(next(iter(find_images([damaged]))))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"not a dataset|there is no such"):
        bc.load_dataset(damaged)


def test_an_archive_in_an_archive_is_left_out_and_said(tmp_path: Path) -> None:
    series(tmp_path / "exam", "one", 2)
    inner = packed(tmp_path / "exam", tmp_path / "exam.zip")
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as archive:
        archive.write(inner, "inner.zip")
        archive.write(tmp_path / "exam" / "IM0000", "IM0000")
    told: list[str] = []
    assert list(find_images([tmp_path / "both.zip"], tell=told.append)) == [tmp_path / "both.zip" / "IM0000"]
    assert f"1 file in both.zip is not an image and was ignored (.zip: 1); {ZIP_RULE}" in told
    with zipfile.ZipFile(tmp_path / "alone.zip", "w") as archive:
        archive.write(inner, "inner.zip")
    with pytest.raises(UserError, match=r"alone.zip.*holds no image"):
        list(find_images([tmp_path / "alone.zip"]))


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SMALL", 2**20)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(2**22))
    with pytest.raises(ImageError, match=r"it unpacks to 4,194,304 bytes, which looks like a decompression bomb"):
        open_image(tmp_path / "bomb.zip" / "a.png")
    monkeypatch.setattr(archives, "MAX_ENTRIES", 2)
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for number in range(3):
            archive.writestr(f"{number}.png", b"x")
    with pytest.raises(UserError, match="holds more than 2 entries"):
        list(find_images([tmp_path / "many.zip"]))
