from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from biomedcoop.data.readers.load import load_dataset
from biomedcoop.data.sampling.split import write_split
from biomedcoop.errors import UserError

Draw = Callable[[Path], Path]


@pytest.fixture
def folder(tmp_path: Path, draw: Draw) -> Path:
    """`study/` with images 0.png … 7.png."""
    for number in range(8):
        draw(tmp_path / "study" / f"{number}.png")
    return tmp_path / "study"


def write(folder: Path, text: str, name: str = "labels.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def rows(*cells: str, header: str = "path,label,split") -> str:
    return "\n".join((header, *cells)) + "\n"


GIVEN = rows("0.png,tumor,train", "1.png,normal_tissue,train", "2.png,tumor,Validation", "3.png,tumor,test")


def test_names_in_the_order_of_their_first_row(folder: Path) -> None:
    data = load_dataset(write(folder, GIVEN))
    assert data.name == "labels"
    assert data.class_names == ("tumor", "normal tissue")
    assert data.labels.tolist() == [0, 1, 0, 0]
    assert data.splits.tolist() == ["train", "train", "val", "test"]
    assert data.keys == ("0.png", "1.png", "2.png", "3.png")
    assert data.groups is None


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_a_byte_order_mark_and_blank_lines(folder: Path, separator: str) -> None:
    data = load_dataset(write(folder, "\ufeff" + GIVEN.replace(",", separator) + "\n\n"))
    assert data.class_names == ("tumor", "normal tissue")


def test_numbers_as_labels(folder: Path) -> None:
    table = rows("0.png,1", "1.png,0", "2.png,1", "3.png,0", header="path,label")
    data = load_dataset(write(folder, table))
    assert data.class_names == ("class 0", "class 1")
    assert "numbers without names" in data.notes[0]
    named = rows("0.png,1,cyst", "1.png,0,normal", "2.png,1,cyst", "3.png,0,normal", header="path,label,class_name")
    assert load_dataset(write(folder, named)).class_names == ("normal", "cyst")


def test_labels_as_a_data_frame_writes_them(folder: Path) -> None:
    table = rows(*(f"{n}.png,{n % 2}.0,{('cyst', 'stone')[n % 2]}" for n in range(8)), header="path,label,class_name")
    data = load_dataset(write(folder, table))
    assert data.class_names == ("cyst", "stone")
    assert data.labels.tolist() == [0, 1] * 4
    assert "class_name" not in " ".join(data.notes)


def test_data_that_are_only_tested_on(folder: Path) -> None:
    one = write(folder, rows("0.png,tumor", "1.png,tumor", header="path,label"))
    assert load_dataset(one, for_training=False).class_names == ("tumor",)
    gap = load_dataset(write(folder, rows("0.png,0", "1.png,2", header="path,label")), for_training=False)
    assert (gap.class_names, gap.labels.tolist()) == (("class 0", "class 1", "class 2"), [0, 2])


def test_paths_as_other_systems_write_them(folder: Path, draw: Draw) -> None:
    for number in range(2):
        draw(folder / "be\u0301nin" / f"{number}.png")
    table = rows("b\u00e9nin\\0.png,a", "b\u00e9nin/1.png,a", "./2.png,b", "3.png,b", header="path,label")
    data = load_dataset(write(folder, table))
    assert data.class_names == ("a", "b")
    assert data.keys == ("b\u00e9nin\\0.png", "b\u00e9nin/1.png", "./2.png", "3.png")
    given = {"train": [["b\u00e9nin/0.png", 0, "a"], ["2.png", 1, "b"]], "test": [["./2.png", 1, "b"]]}
    with pytest.raises(UserError, match=r"'\./2\.png' is listed in two splits"):
        load_dataset(folder / "labels.csv", split_file=write(folder, json.dumps(given), "mine.json"))
    given["test"] = [["b\u00e9nin/1.png", 0, "a"]]
    split = load_dataset(folder / "labels.csv", split_file=write(folder, json.dumps(given), "mine.json"))
    assert split.keys == ("b\u00e9nin\\0.png", "./2.png", "b\u00e9nin/1.png")


def test_a_column_of_patients_is_kept_together(folder: Path) -> None:
    table = rows(*(f"{n}.png,{'ab'[n % 2]},{n // 2}.0" for n in range(8)), header="path,label,Patient ID")
    data = load_dataset(write(folder, table))
    assert data.groups is not None
    assert data.groups.tolist() == [str(n // 2) for n in range(8)]
    assert "the column Patient ID is read as the group" in data.notes[0]


def test_groups_are_kept_together_when_a_test_split_is_drawn(many_images: Path) -> None:
    names = [f"{'cyst' if n % 2 else 'normal_scan'}/{n // 2:02}.png" for n in range(80)]
    table = rows(*(f"{name},{name[0]},patient {n // 2}" for n, name in enumerate(names)), header="path,label,group")
    data = load_dataset(write(many_images, table))
    assert data.groups is not None
    sides = {group: set(data.splits[data.groups == group].tolist()) for group in set(data.groups.tolist())}
    assert all(len(splits) == 1 for splits in sides.values())
    assert data.counts("test").tolist() == [12, 12]
    assert "groups kept together" in data.notes[0]


def test_a_group_in_val_is_not_drawn_into_test(many_images: Path) -> None:
    names = [f"{'cyst' if n % 2 else 'normal_scan'}/{n // 2:02}.png" for n in range(80)]
    cells = [f"{name},{name[0]},{'val' if n < 2 else 'train'},p{max(n // 2, 3)}" for n, name in enumerate(names)]
    table = rows(*cells, header="path,label,split,group")
    for seed in range(5):
        data = load_dataset(write(many_images, table), seed=seed)
        assert data.splits[:8].tolist() == ["val"] * 2 + ["train"] * 6
        assert data.counts("test").tolist() == [11, 11]


def test_absolute_paths_outside_the_table_s_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    table = write(tmp_path / "tables", GIVEN.replace("\n0", f"\n{folder}/0").replace("1.png", "../study/1.png"))
    (tmp_path / "tables" / "2.png").write_bytes((folder / "2.png").read_bytes())
    (tmp_path / "tables" / "3.png").write_bytes((folder / "3.png").read_bytes())
    data = load_dataset(table)
    assert data.root == tmp_path / "tables"
    assert data.keys == (f"{folder}/0.png", "../study/1.png", "2.png", "3.png"), "as the table gives them"


def test_parquet_gives_the_same_as_csv(folder: Path) -> None:
    import pyarrow
    from pyarrow.parquet import write_table

    csv_table = rows("0.png,1,p", "1.png,0,", "2.png,1,p", "3.png,0,q", header="path,label,group")
    columns = {"path": [f"{n}.png" for n in range(4)], "label": [1, 0, 1, 0], "group": ["p", None, "p", "q"]}
    write_table(pyarrow.table(columns), folder / "labels.parquet")
    from_csv, from_parquet = load_dataset(write(folder, csv_table)), load_dataset(folder / "labels.parquet")
    for one, other in (
        (from_csv.keys, from_parquet.keys),
        (from_csv.labels.tolist(), from_parquet.labels.tolist()),
        (from_csv.splits.tolist(), from_parquet.splits.tolist()),
    ):
        assert one == other
    assert from_parquet.groups is not None
    assert from_parquet.groups.tolist() == ["p", "", "p", "q"]
    (folder / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="not a readable Parquet file"):
        load_dataset(folder / "broken.parquet")


def test_a_written_split_applies_to_the_table_and_keeps_its_groups(folder: Path, tmp_path: Path) -> None:
    table = write(folder, rows(*(f"{n}.png,{'ab'[n % 2]},g{n}" for n in range(8)), header="path,label,group"))
    drawn = load_dataset(table, seed=4)
    write_split(drawn, tmp_path / "split.json")
    again = load_dataset(table, split_file=tmp_path / "split.json")
    assert {*zip(drawn.keys, drawn.splits.tolist(), strict=True)} == {
        *zip(again.keys, again.splits.tolist(), strict=True)
    }
    assert again.groups is not None
    assert again.groups.tolist() == [f"g{key[0]}" for key in again.keys]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'path'"),
        ("path,label\n", "no rows"),
        ("file,label\n0.png,a\n", r"no column 'path' \(it has file, label\)"),
        ("path,path\n0.png,a\n", "a column name appears twice"),
        (rows("0.png,a,train", "1.png,b"), "line 3 has 2 cells but the header has 3"),
        (rows('0.png,"a,train'), "line 2 is not readable CSV"),
        (rows("0.png,,train"), "line 2 has an empty label"),
        (rows("0.png,a,"), "line 2 has an empty split"),
        (rows("0.png,a,train", "1.png,b,holdout"), "line 3: unknown split 'holdout'"),
        (rows("0.png,a,train", "9.png,b,train"), "there is no file '9.png'"),
        (rows("0.png,0,train", "1.png,1,train", "2.png,?,train"), "line 4 has the label '\\?', which is not a number"),
        (rows("0.png,a,train", "NaN,b,train"), "line 3 has an empty path"),
        (rows("0.png,a,train", "1.png,a|b,train", "2.png,b,train"), "several labels in one cell, 'a|b' \\(line 3\\)"),
        (rows("0.png,a,train", "0.png,a,train", "1.png,b,train"), "'0.png' is listed twice in train"),
        (rows("0.png,a,train", "1.png,b,train", "./0.png,a,test"), "listed in two splits, train and test"),
        (rows("0.png,a,train", "1.png,A,train"), "'a' and 'A' are the same"),
        (rows("0.png,1,train", "1.png,2,train"), "the labels are 1, 2; they must be 0 to 1"),
        (rows("0.png,-1,train", "1.png,0,train"), "the labels are -1, 0"),
        (rows("0.png,a,train", "1.png,a,train"), "one class"),
        (rows("0.png,a,train", "1.png,b,test"), "class 'b' has no image in train"),
        (rows("0.png,a,test", "1.png,b,test"), "none to train on"),
        (
            rows("0.png,0,a", "1.png,0,b", "2.png,1,c", header="path,label,class_name"),
            "label 0 has two class names, 'a' and 'b'",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(folder: Path, text: str, message: str) -> None:
    file = write(folder, text)
    with pytest.raises(UserError, match=message) as caught:
        load_dataset(file)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_text_in_another_encoding(folder: Path) -> None:
    (folder / "latin.csv").write_bytes("path,label\n0.png,größe\n".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        load_dataset(folder / "latin.csv")
    (folder / "wide.csv").write_bytes(GIVEN.replace("tumor", "größe").encode("utf-16"))
    assert load_dataset(folder / "wide.csv").class_names == ("größe", "normal tissue")
