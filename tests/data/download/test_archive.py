"""Crafted archives: whatever they hold, nothing is written outside the folder, and the refusal is one line."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from biomedcoop.data.download.archive import Limits, unpack, unpacked_size
from biomedcoop.errors import UserError


def make_zip(path: Path, *entries: tuple[str, bytes], mode: int = 0, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as packed:
        for name, content in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, compression
            packed.writestr(info, content)
    return path


def make_tar(path: Path, *entries: tuple[str, bytes], kind: bytes = tarfile.REGTYPE, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as packed:  # type: ignore[call-overload]
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "../../outside"
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            packed.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[..., str]:
    """Unpack an archive that must be refused; returns the line. Nothing outside the folder is touched."""
    folder = tmp_path / "in" / "here"
    folder.mkdir(parents=True)

    def call(archive: Path, limits: Limits | None = None) -> str:
        with pytest.raises(UserError) as caught:
            unpack(archive, folder, limits)
        assert {path.name for path in tmp_path.iterdir()} == {"in", archive.name}
        assert [path.name for path in folder.parent.iterdir()] == ["here"]
        line = str(caught.value)
        assert "\n" not in line
        assert line.startswith(f"{archive}: ")
        return line

    return call


@pytest.mark.parametrize("make", [make_zip, make_tar, lambda *words: make_tar(*words, mode="w:xz")])
def test_files_are_unpacked_without_those_of_the_operating_system(make: Callable[..., Path], tmp_path: Path) -> None:
    entries = [
        ("BUSI/", b""),
        ("BUSI/benign (1).png", b"one"),
        ("./BUSI/deep/é.png", b"two"),
        ("windows\\three.png", b"three"),
        ("__MACOSX/BUSI/._benign (1).png", b"x"),
        ("BUSI/.DS_Store", b"x"),
    ]
    archive = make(tmp_path / "archive", *(entries if make is make_zip else entries[1:]))
    seen: list[tuple[int, int]] = []
    unpack(archive, tmp_path / "out", progress=lambda what, done, total: seen.append((done, total)))
    found = {
        path.relative_to(tmp_path / "out").as_posix(): path.read_bytes() for path in (tmp_path / "out").rglob("*.*")
    }
    assert found == {"BUSI/benign (1).png": b"one", "BUSI/deep/é.png": b"two", "windows/three.png": b"three"}
    assert len(seen) == 3
    assert make is not make_zip or unpacked_size(archive) == len("onetwothreexx")


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/outside.png", "an absolute path"),
        ("\\outside.png", "an absolute path"),
        ("C:/outside.png", "an absolute path"),
        ("c:outside.png", "an absolute path"),
        ("../outside.png", "a path that leaves the folder"),
        ("a/../../outside.png", "a path that leaves the folder"),
        ("a\\..\\..\\outside.png", "a path that leaves the folder"),
        ("a/con.png", "a name that Windows cannot hold"),
        ("a/LPT1", "a name that Windows cannot hold"),
        ("a/image.png:stream", "a name that Windows cannot hold"),
        ("a./image.png", "a name that Windows cannot hold"),
        ("a/im\nage.png", "a name that Windows cannot hold"),
    ],
)
def test_paths(make: Callable[..., Path], name: str, words: str, refusal: Callable[..., str], tmp_path: Path) -> None:
    assert f"{name!r} is {words}" in refusal(make(tmp_path / "archive", (name, b"x")))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (tarfile.SYMTYPE, "a link"),
        (tarfile.LNKTYPE, "a link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a device"),
    ],
)
def test_links_and_devices_in_tar(kind: bytes, words: str, refusal: Callable[..., str], tmp_path: Path) -> None:
    assert f"'odd' is {words}" in refusal(make_tar(tmp_path / "archive", ("odd", b""), kind=kind))


@pytest.mark.parametrize(
    ("mode", "words"),
    [(stat.S_IFLNK, "a link"), (stat.S_IFCHR, "a device"), (stat.S_IFBLK, "a device"), (stat.S_IFIFO, "a device")],
)
def test_links_and_devices_in_zip(mode: int, words: str, refusal: Callable[..., str], tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "archive", ("odd", b"../../outside"), mode=mode | 0o777)
    assert f"'odd' is {words}" in refusal(archive)


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_bombs(make: Callable[..., Path], refusal: Callable[..., str], tmp_path: Path) -> None:
    archive = make(tmp_path / "archive", *((f"{n}.png", bytes(10_000_000)) for n in range(3)))
    assert archive.stat().st_size < 100_000
    assert "looks like a decompression bomb" in refusal(archive)
    assert "more than 5 bytes" in refusal(archive, Limits(unpacked=5))
    unpack(archive, tmp_path / "in" / "trusted", Limits(ratio=10_000))
    assert len(list((tmp_path / "in" / "trusted").iterdir())) == 3


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_too_many_entries(make: Callable[..., Path], refusal: Callable[..., str], tmp_path: Path) -> None:
    archive = make(tmp_path / "archive", *((f"{n}.png", b"x") for n in range(12)))
    assert "it holds more than 11 entries" in refusal(archive, Limits(files=11))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("a/1.png", "a/1.png"), "two entries are named 'a/1.png'"),
        (("a/1.png", "a\\1.png"), "two entries are named"),
        (("a", "a/1.png"), "'a/1.png' clashes with another entry"),
        (("a/1.png", "a"), "'a' clashes with another entry"),
    ],
)
def test_names_that_clash(
    make: Callable[..., Path], names: tuple[str, str], words: str, refusal: Callable[..., str], tmp_path: Path
) -> None:
    assert words in refusal(make(tmp_path / "archive", *((name, b"x") for name in names)))


def test_damage(refusal: Callable[..., str], tmp_path: Path) -> None:
    whole = make_zip(tmp_path / "archive", ("a.png", b"words" * 1000), compression=zipfile.ZIP_STORED).read_bytes()
    archive = tmp_path / "archive"
    archive.write_bytes(whole.replace(b"words", b"sword", 1))
    assert "damaged (Bad CRC-32 for file 'a.png'); remove it and download it again" in refusal(archive)
    (tmp_path / "in" / "here" / "a.png").unlink()
    archive.write_bytes(whole[: len(whole) // 2])
    assert "neither a zip nor a tar archive" in refusal(archive)
    whole = make_tar(archive, *((f"{n}.png", os.urandom(5000)) for n in range(9))).read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    assert "damaged" in refusal(archive)


def test_encrypted_files(refusal: Callable[..., str], tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "archive", ("a.png", b"x"))
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    assert "'a.png' is encrypted" in refusal(archive)


def test_a_compression_that_python_lacks(refusal: Callable[..., str], tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "archive", ("a.png", b"x"))
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 10] = 9  # Deflate64, which Windows writes
    archive.write_bytes(content)
    assert "unpack it by hand and run 'biomedcoop datasets prepare'" in refusal(archive)
