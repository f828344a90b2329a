"""Columns that look like patients or splits are used or said, never passed over in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from biomedcoop.data.readers.files.table_columns import ImageColumns, read_columns
from biomedcoop.data.tables.reading import open_table
from biomedcoop.errors import UserError


def read(folder: Path, header: str, *rows: str) -> ImageColumns:
    (folder / "t.csv").write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    return read_columns(open_table(folder / "t.csv", ("path", "label")))


@pytest.mark.parametrize(
    "name", ["patient_id", "PatientID", "Patient", "subject", "lesion id", "groups", "slide_id", "case-id"]
)
def test_a_column_named_after_patients_is_the_group(tmp_path: Path, name: str) -> None:
    found = read(tmp_path, f"path,label,{name}", "0,a,7.0", "1,a,7", "2,b,", "3,b,n/a", "4,b,x 1")
    assert found.groups == ["7", "7", "", "", "x 1"]
    assert found.notes == (f"the column {name} is read as the group; rename it to turn this off",)


def test_a_patient_goes_before_a_lesion(tmp_path: Path) -> None:
    found = read(tmp_path, "path,label,lesion_id,patient_id", "0,a,l1,p1", "1,a,l1,p1", "2,b,l2,p1", "3,b,l3,p2")
    assert found.groups == ["p1", "p1", "p1", "p2"]


@pytest.mark.parametrize(
    ("header", "cells", "note"),
    [
        ("patient,subject", "p,s", "the columns patient and subject look like groups and are not used"),
        ("patient_id", "p", "all images have the same patient_id, so it is not used as the group"),
        ("study", "s", "the column study is not used; if images with the same study belong together, name it group"),
    ],
)
def test_columns_that_are_only_said(tmp_path: Path, header: str, cells: str, note: str) -> None:
    found = read(tmp_path, f"path,label,{header}", f"0,a,{cells}", f"1,b,{cells}")
    assert found.groups is None
    assert len(found.notes) == 1
    assert note in found.notes[0]


def test_columns_that_say_nothing(tmp_path: Path) -> None:
    found = read(tmp_path, "path,label,patient_id,study,comment,group", "0,a,1,,x,", "1,a,2,,x,-", "2,b,,s,y,NA")
    assert (found.groups, found.notes) == (None, ())


def test_the_column_group_is_what_counts(tmp_path: Path) -> None:
    found = read(tmp_path, "path,label,group,patient,lesion", "0,a,1.0,p,l", "1,a,2,p,m", "2,b,1,q,l")
    assert found.groups == ["1", "2", "1"]
    assert found.notes == ("some images with the same patient are in different groups; the column group is used",)


def test_one_spelling_of_a_group(tmp_path: Path) -> None:
    found = read(tmp_path, "path,label,group", "0,a,Ren\u00e9", "1,a,Rene\u0301", "2,b,007", "3,b,7", "4,b,1.50")
    assert found.groups == ["Ren\u00e9", "Ren\u00e9", "007", "7", "1.50"]


def test_a_column_of_split_words_is_the_split(tmp_path: Path) -> None:
    found = read(tmp_path, "path,label,Subset", "0,a,train", "1,a,Validation", "2,b,TEST")
    assert found.splits == ["train", "Validation", "TEST"]
    assert found.notes == ("the column Subset is read as the split; rename it to turn this off",)
    partly = read(tmp_path, "path,label,set", "0,a,train", "1,a,B")
    assert (partly.splits, partly.notes) == (
        None,
        ("the column set looks like a split and is not used; name it split to use it",),
    )
    assert read(tmp_path, "path,label,set,split", "0,a,test,train").splits == ["train"]
    assert read(tmp_path, "path,label,fold", "0,a,1", "1,a,2").notes == ()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "path,diagnosis",
            r"no column 'label' \(it has path, diagnosis\); if 'diagnosis' is meant, rename it to label",
        ),
        ("path,class_name", "if 'class_name' is meant, rename it to label"),
        ("Image Index,Finding Labels", "no column 'path' .*; if 'Image Index' is meant, rename it to path"),
        ("path,MEL,NV", r"no column 'label' \(it has path, MEL, NV\); expected path,label"),
    ],
)
def test_columns_that_are_not_there(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path, header, "0,a")


@pytest.mark.parametrize("row", ['"0\n1",a,x', '0,"a\nb",x', '0,a,"x\n1,b,y"'])
def test_a_cell_over_two_lines_is_a_forgotten_quote(tmp_path: Path, row: str) -> None:
    with pytest.raises(UserError, match=r"line 3 has a line break in its (path|label|group); close the quote"):
        read(tmp_path, "path,label,group", "9,a,x", row)
