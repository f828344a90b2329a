"""Columns that divide the images into subgroups: which are found, what becomes of ages, and what stays out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from biomedcoop.data.readers.files.table_subgroups import read_subgroups
from biomedcoop.data.readers.load import load_dataset
from biomedcoop.errors import Note


def test_a_tables_columns_follow_the_images(tmp_path: Path, draw: Callable[[Path], Path]) -> None:
    for number in range(4):
        draw(tmp_path / f"{number}.png")
    header = "path,label,split,Patient Name,Patient Gender,PatientAge,View_Position\n"
    lines = ["0.png,a,test,N,M,30,PA", "1.png,b,test,O,f,45.0,PA", "2.png,a,train,P,m,,AP", "3.png,b,train,Q,NaN,97,ap"]
    (tmp_path / "t.csv").write_text(header + "\n".join(lines) + "\n", encoding="utf-8")
    with pytest.warns(Note, match="results are also given by Patient Gender, PatientAge, View_Position; rename"):
        data = load_dataset(tmp_path / "t.csv")
    assert {column: values.tolist() for column, values in data.part("train").subgroups.items()} == {
        "Patient Gender": ["male", ""],
        "PatientAge": ["", "80 or more"],
        "View_Position": ["AP", "AP"],
    }


@pytest.mark.parametrize(
    ("cells", "bands"),
    [
        (["0", "17.9", "18", "39", "40", "60", "80", "120"], "0–17 0–17 18–39 18–39 40–59 60–79 80_or_more 80_or_more"),
        (["045Y", "009M", "061Y", ""], "40–59 0–17 60–79 "),
        (["85+", "30 years"], "80_or_more 18–39"),
    ],
)
def test_ages_become_bands(cells: list[str], bands: str) -> None:
    found, _ = read_subgroups({"age": cells})
    assert found["age"] == [band.replace("_", " ") for band in bands.split(" ")]


def test_what_is_no_age_is_said() -> None:
    found, notes = read_subgroups({"age": ["20", "50", "999", "-1"]})
    assert found["age"] == ["18–39", "40–59", "", ""]
    assert notes[0] == "2 cells of the column age are no age in years ('999') and are not used"
    assert read_subgroups({"age": ["child", "adult"]})[0] == {"age": ["child", "adult"]}
    assert read_subgroups({"age_group": ["1", "2"]})[0] == {"age_group": ["1", "2"]}


def test_columns_without_subgroups_and_with_too_many() -> None:
    many = [str(number) for number in range(13)]
    found, notes = read_subgroups({"sex": ["F"] * 12 + [""], "site": many, "device": [*many[:-1], "0"]})
    assert list(found) == ["device"]
    assert notes == [
        "columns with more than 12 values give no results by subgroup: site (13 values)",
        "results are also given by device; rename a column to turn this off",
    ]
    assert read_subgroups({}) == ({}, [])
