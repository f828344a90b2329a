"""MedMNIST files by name, with a stub in place of the package ``medmnist``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from biomedcoop.data.download.datasets import download_dataset
from biomedcoop.data.readers.load import load_dataset
from biomedcoop.errors import UserError

STUB = """
from pathlib import Path
import numpy as np

INFO = {"pathmnist": {"python_class": "PathMNIST"}, "octmnist": {"python_class": "OCTMNIST"}}

class PathMNIST:
    def __init__(self, split, download=False, root="", size=None):
        assert split == "train" and download
        labels = np.arange(9).reshape(-1, 1)
        arrays = {f"{s}_images": np.zeros((9, size, size, 3), np.uint8) for s in ("train", "val", "test")}
        arrays |= {f"{s}_labels": labels for s in ("train", "val", "test")}
        np.savez(Path(root) / ("pathmnist.npz" if size == 28 else f"pathmnist_{size}.npz"), **arrays)

class OCTMNIST:
    def __init__(self, split, download=False, root="", size=None):
        raise RuntimeError("Something went wrong\\nwhen downloading!")
"""


@pytest.fixture
def package(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "medmnist.py").write_text(STUB)
    monkeypatch.syspath_prepend(tmp_path / "package")
    monkeypatch.delitem(sys.modules, "medmnist", raising=False)
    return tmp_path / "package" / "medmnist.py"


@pytest.mark.parametrize(("name", "size"), [("pathmnist", 28), ("pathmnist_28", 28), ("PathMNIST_64", 64)])
def test_a_file_is_downloaded_and_found_by_its_name(name: str, size: int, package: Path, root: Path) -> None:
    check = download_dataset(name)
    assert (check.place, check.images, check.done) == (root / f"{name.lower()}.npz", 27, "downloaded")
    assert [path.name for path in root.iterdir()] == [f"{name.lower()}.npz"]
    data = load_dataset(name)
    assert (data.name, len(data.class_names), np.shape(data.images)) == ("pathmnist", 9, (27, size, size, 3))
    assert download_dataset(name).done == "already there"


def test_trouble(package: Path, root: Path) -> None:
    def refused(name: str, offline: bool = False) -> str:
        with pytest.raises(UserError) as caught:
            download_dataset(name, offline=offline)
        assert not list(root.glob("*"))
        return str(caught.value)

    assert "Something went wrong when downloading!; try again" in refused("octmnist_64")
    assert "cannot give bloodmnist ('bloodmnist'); update it" in refused("bloodmnist")
    assert "without the network it cannot be downloaded" in refused("pathmnist", offline=True)
    package.write_text("INFO = {'pathmnist': {'python_class': 'Old'}}\nclass Old:\n    def __init__(self, split): ...")
    sys.modules.pop("medmnist")
    assert "update it" in refused("pathmnist_224")


def test_without_the_package(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "medmnist", None)
    with pytest.raises(UserError, match="run 'pip install medmnist', or put pathmnist"):
        download_dataset("pathmnist")
    root.mkdir(exist_ok=True)
    with pytest.raises(UserError, match="run 'biomedcoop datasets download pathmnist_224'"):
        load_dataset("pathmnist_224")
