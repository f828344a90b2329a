"""Files of ``torch.save``: every kind of tensor comes out, spoilt archives are refused in one line."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from biomedcoop.backbones.torch_archive import MOST_PICKLE, open_archive
from biomedcoop.errors import UserError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.save({"ctx": torch.arange(12.0).view(3, 4), "epoch": 3}, tmp_path / "model.pth.tar-100")
    return tmp_path / "model.pth.tar-100"


def read(path: Path) -> dict[str, torch.Tensor]:
    with open_archive(path) as archive:
        return {name: archive.tensor(value) for name, value in archive.content.items() if name != "epoch"}


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_tensors_of_every_kind(tmp_path: Path) -> None:
    base = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    saved = {
        "view": base[1:, 2:4],
        "transposed": base.T,
        "half": base.half(),
        "bfloat16": base.bfloat16(),
        "double": base.double(),
        "whole": torch.arange(7),
        "flags": base > 0,
        "bytes": torch.arange(5, dtype=torch.uint8),
        "scalar": torch.tensor(4.5),
        "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(base),
    }
    torch.save(saved, tmp_path / "x.pth")
    found = read(tmp_path / "x.pth")
    assert found.keys() == saved.keys()
    for name, value in saved.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
        assert torch.equal(found[name], value.detach())
        assert found[name].is_contiguous()


def rewritten(file: Path, change: Callable[[zipfile.ZipInfo, bytes], tuple[zipfile.ZipInfo, bytes] | None]) -> Path:
    """The same archive with changed entries."""
    with zipfile.ZipFile(file) as archive:
        entries = [(zipfile.ZipInfo(info.filename), archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(file, "w") as archive:
        for info, content in entries:
            if (new := change(info, content)) is not None:
                archive.writestr(new[0], new[1])
    return file


def test_damaged_and_other_files(file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 30):
        file.write_bytes(content[:length])
        assert "is no whole checkpoint of PyTorch" in refusal(file)
    page = tmp_path / "page.pth"
    page.write_text("<html>proxy login</html>")
    assert "is no whole checkpoint of PyTorch (File is not a zip file); download the file again" in refusal(page)
    assert "there is no such file" in refusal(tmp_path / "gone")
    assert "cannot be read" in refusal(tmp_path)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "a zip archive, but none of torch.save" in refusal(tmp_path / "other.zip")


def test_flipped_bytes_of_a_tensor(file: Path) -> None:
    content = bytearray(file.read_bytes())
    place = content.index(torch.arange(12.0).numpy().tobytes())
    content[place] ^= 1
    file.write_bytes(content)
    assert "Bad CRC-32" in refusal(file)


def test_the_format_before_torch_1_6(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    line = refusal(tmp_path / "old.pth")
    assert "is in the format of torch before version 1.6, which only running its contents can read" in line


def test_a_link_a_compressed_entry_and_a_repeated_one(file: Path) -> None:
    original = file.read_bytes()

    def link(info: zipfile.ZipInfo, content: bytes) -> tuple[zipfile.ZipInfo, bytes]:
        if info.filename.endswith("data/0"):
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            content = b"/etc/passwd"
        return info, content

    assert "data/0' in it is a link" in refusal(rewritten(file, link))
    file.write_bytes(original)

    def squeezed(info: zipfile.ZipInfo, content: bytes) -> tuple[zipfile.ZipInfo, bytes]:
        info.compress_type = zipfile.ZIP_DEFLATED
        return info, bytes(10_000_000) if info.filename.endswith("data/0") else content

    assert "is compressed or encrypted, which torch.save never does" in refusal(rewritten(file, squeezed))
    file.write_bytes(original)
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(file, "a") as archive:
        archive.writestr(next(name for name in archive.namelist() if name.endswith("data.pkl")), b"other")
    assert "data.pkl' twice" in refusal(file)


@pytest.mark.parametrize("size", [0, 44, 52])
def test_a_storage_of_another_size(file: Path, size: int) -> None:
    def resized(info: zipfile.ZipInfo, content: bytes) -> tuple[zipfile.ZipInfo, bytes]:
        return info, bytes(size) if info.filename.endswith("data/0") else content

    assert f"should take 48 bytes and has {size}" in refusal(rewritten(file, resized))


def test_a_missing_storage(file: Path) -> None:
    without = rewritten(file, lambda info, content: None if info.filename.endswith("data/0") else (info, content))
    assert "should take 48 bytes and has none" in refusal(without)


def test_entries_that_share_their_bytes(file: Path) -> None:
    """The table of contents can name the same bytes many times, so that a small file claims to be huge."""
    with zipfile.ZipFile(file, "a") as archive:
        first = archive.infolist()[0]
        for number in range(2000):
            again = zipfile.ZipInfo(f"x/{number}")
            again.file_size = again.compress_size = 10_000_000
            again.header_offset, again.CRC = first.header_offset, first.CRC
            archive.filelist.append(again)
        archive._didModify = True
    assert "its entries claim" in refusal(file)


def test_a_pickle_of_a_size_that_no_checkpoint_has(file: Path) -> None:
    def huge(info: zipfile.ZipInfo, content: bytes) -> tuple[zipfile.ZipInfo, bytes]:
        return info, bytes(MOST_PICKLE + 1) if info.filename.endswith("data.pkl") else content

    assert f"more than {MOST_PICKLE}" in refusal(rewritten(file, huge))


def test_the_byte_order_of_another_machine(file: Path) -> None:
    def big(info: zipfile.ZipInfo, content: bytes) -> tuple[zipfile.ZipInfo, bytes]:
        return info, b"big" if info.filename.endswith("byteorder") else content

    assert "byte order" in refusal(rewritten(file, big))


def test_a_file_with_code_names_it_and_runs_nothing(tmp_path: Path) -> None:
    trace = tmp_path / "it ran"

    class Code:
        def __reduce__(self) -> object:
            return os.mkdir, (str(trace),)

    content = io.BytesIO()
    torch.save({"state_dict": {"ctx": torch.ones(2)}, "scheduler": Code()}, content)
    (tmp_path / "bad.pth").write_bytes(content.getvalue())
    line = refusal(tmp_path / "bad.pth")
    assert "refused, nothing in it was run: it names the code " in line
    assert ".mkdir'" in line
    assert not trace.exists()
