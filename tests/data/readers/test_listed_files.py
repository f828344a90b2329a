"""Listed files are found in whatever Unicode form the disk has them."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from biomedcoop.data.readers.listed_files import PathFinder
from biomedcoop.data.readers.load import load_dataset
from biomedcoop.errors import UserError

Draw = Callable[[Path], Path]
NFC, NFD = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(("listed", "there"), [(NFC, NFD), (NFD, NFC)])
def test_a_file_and_the_folders_above_it_in_another_form(tmp_path: Path, draw: Draw, listed: str, there: str) -> None:
    file = draw(tmp_path / there / f"{there}_1" / f"{there}.png")
    assert PathFinder().find(tmp_path / listed / f"{listed}_1" / f"{listed}.png") == file
    assert PathFinder().find(file) == file
    nothing = tmp_path / listed / "x.png"
    assert PathFinder().find(nothing) == nothing


def test_a_relative_path(tmp_path: Path, draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / f"{NFD}.png")
    monkeypatch.chdir(tmp_path)
    assert PathFinder().find(Path(f"{NFC}.png")).is_file()


def test_of_two_forms_on_the_disk_the_listed_one_is_meant(tmp_path: Path, draw: Draw) -> None:
    files = [draw(tmp_path / f"{form}.png") for form in (NFC, NFD)]
    if len(list(tmp_path.iterdir())) == 2:  # a disk of macOS holds one
        assert [PathFinder().find(file) for file in files] == files


@pytest.fixture
def folder(tmp_path: Path, draw: Draw) -> Path:
    """`é/é/<class>/é.png`, as a zip made on macOS unpacks."""
    for name in ("a", "b"):
        for number in range(2):
            draw(tmp_path / NFD / NFD / name / f"{NFD}{number}.png")
    return tmp_path / NFD


def lists(form: str) -> dict[str, list[tuple[str, int, str]]]:
    names = enumerate(("a", "b"))
    return {"train": [(f"{name}/{form}{number}.png", label, name) for label, name in names for number in range(2)]}


def test_a_split_file_and_a_table_from_elsewhere(folder: Path, tmp_path: Path) -> None:
    (folder / f"split_{NFC}.json").write_text(json.dumps(lists(NFC)), encoding="utf-8")
    data = load_dataset(tmp_path / NFC)  # the data's own name in the other form, too
    assert all(path.is_file() for path in data.images)
    rows = [f"{NFC}/{NFC}/{key},{name}" for key, _, name in lists(NFC)["train"]]
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    table = load_dataset(tmp_path / "t.csv")
    assert [path.name for path in table.images] == [path.name for path in data.images]

    entries = [[f"{NFC}/{NFC}/{key}", *more] for key, *more in lists(NFC)["train"]]
    (tmp_path / "mine.json").write_text(json.dumps({"train": entries}))
    again = load_dataset(tmp_path / "t.csv", split_file=tmp_path / "mine.json", for_training=False)
    assert again.keys == load_dataset(tmp_path / "t.csv", for_training=False).keys


def test_one_file_listed_in_two_forms(folder: Path) -> None:
    content = {**lists(NFC), "test": lists(NFD)["train"]}
    (folder / "split.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match="is listed in two splits, train and test"):
        load_dataset(folder)
