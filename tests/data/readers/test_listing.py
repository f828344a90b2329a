"""Images of any source: which sources give classes, and which do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biomedcoop.data.readers.listing import list_images
from biomedcoop.errors import UserError


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Four images in two folders."""
    for name in ("cyst/a", "cyst/b", "stone/a", "stone/b"):
        path = tmp_path / "scans" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), len(name), dtype=np.uint8)).save(path)
    return tmp_path / "scans"


def test_class_folders_give_classes_unless_told_otherwise(scans: Path) -> None:
    found = list_images([scans])
    assert found.keys == ["cyst/a.png", "cyst/b.png", "stone/a.png", "stone/b.png"]
    assert found.classes == ["cyst", "cyst", "stone", "stone"]
    assert found.splits == [None] * 4
    found = list_images([scans], labels=False)
    assert found.keys == [str(scans / key) for key in ("cyst/a.png", "cyst/b.png", "stone/a.png", "stone/b.png")]
    assert found.classes == [None] * 4


def test_a_folder_with_images_of_its_own_gives_none(scans: Path) -> None:
    assert list_images([scans / "cyst"]).classes == [None, None]
    (scans / "cyst" / "a.png").rename(scans / "a.png")
    assert list_images([scans]).classes == [None] * 4


def test_a_table_gives_classes_if_it_has_a_column_label(scans: Path) -> None:
    (scans / "labelled.csv").write_text("path,label,split\ncyst/a.png,cyst,train\nstone/a.png,stone,test\n")
    found = list_images([scans / "labelled.csv"])
    assert (found.classes, found.splits) == (["cyst", "stone"], ["train", "test"])
    (scans / "plain.csv").write_text("path\ncyst/a.png\ncyst/a.png\n")
    found = list_images([scans / "plain.csv"])
    assert (found.keys, found.classes) == (["cyst/a.png", "cyst/a.png"], [None, None])


def test_names_and_arrays_give_classes(tmp_path: Path) -> None:
    images, labels = np.zeros((4, 8, 8), dtype=np.uint8), np.array([[0], [1], [0], [1]])
    parts = {
        f"{split}_{what}": of for split in ("train", "test") for what, of in (("images", images), ("labels", labels))
    }
    np.savez(tmp_path / "tiny.npz", **parts)
    found = list_images([tmp_path / "tiny.npz", "simulated:breast-ultrasound?train=1&val=0&test=1"])
    assert found.keys[0] == f"{tmp_path / 'tiny.npz'}/train[0]"
    assert len(found.images) == len(found.classes) == 8 + 6
    assert set(found.splits) == {"train", "test"}


def test_what_cannot_be_read_is_refused(scans: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no images are named"):
        list_images([])
    with pytest.raises(UserError, match="there is no such folder or file"):
        list_images([tmp_path / "nowhere.png"])
