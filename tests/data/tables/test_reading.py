"""Tables as spreadsheets, data frames and people write them: read alike, or refused with the line."""

from __future__ import annotations

import datetime
import tracemalloc
from collections import deque
from decimal import Decimal
from pathlib import Path

import pytest

from biomedcoop.data.tables.missing import is_missing, is_missing_name
from biomedcoop.data.tables.reading import open_table
from biomedcoop.data.tables.table import Table
from biomedcoop.errors import UserError


def put(folder: Path, content: str | bytes, name: str = "t.csv") -> Path:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name


def cells(table: Table, *names: str) -> list[tuple[str, ...]]:
    return [row for _, row in table.rows([table.require(name, "it") for name in names])]


WANTED = [("a.png", "benign"), ("b c.png", "no finding")]


@pytest.mark.parametrize(
    "text",
    [
        "path,label\na.png,benign\nb c.png,no finding\n",
        "path;label\na.png;benign\nb c.png;no finding",
        "path\tlabel\na.png\tbenign\nb c.png\tno finding\n",
        "path|label\na.png|benign\nb c.png|no finding\n",
        "path,label\r\na.png,benign\r\nb c.png,no finding\r\n",
        "path,label\ra.png,benign\rb c.png,no finding\r",
        "sep=;\npath;label\na.png;benign\nb c.png;no finding\n",
        '\ufeff"sep=;"\r\npath;label\r\na.png;benign\r\nb c.png;no finding\r\n',
        "SEP=\\t\npath\tlabel\na.png\tbenign\nb c.png\tno finding\n",
        "sep=:\npath:label\na.png:benign\nb c.png:no finding\n",
        "\n\n,,\npath,label\n\na.png,benign\n,\n , \nb c.png,no finding\n\n",
        'path,label\na.png, "benign"\n "b c.png",  "no finding"\n',
        '"path" , label\na.png,benign\nb c.png,no finding\n'.replace('" ,', '",'),
        '"site, ward; floor",path,label\n"A, 1",a.png,benign\nB,b c.png,no finding\n',
        "site, ward, floor;path;label\nA;a.png;benign\nB;b c.png;no finding\n",
        "path;label;;;\na.png;benign;;;\nb c.png;no finding;;;\n;;;;\n",
        "path,label\na.png,benign,,\nb c.png,no finding\n",
        ",path,label\n0,a.png,benign\n1,b c.png,no finding\n",
        "Path,LABEL ,note,note\na.png,benign,x,\nb c.png,no finding,,y\n",
        '"seen\non",path,label\nMay,a.png,benign\n"May\nor June",b c.png,no finding\n',
        "path,label\n\u202aa.png\u202c,\u200bbenign\nb c.png\xa0,\ufeffno finding\n",
        'path,label,note\na.png,benign,5" cut\nb c.png,no finding,"say ""no"""\n',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_that_say_the_same(tmp_path: Path, text: str, encoding: str) -> None:
    table = open_table(put(tmp_path, text.encode(encoding)), ("path", "label"))
    assert cells(table, "path", "label") == WANTED
    assert cells(table, "label") == [row[1:] for row in WANTED]  # as often as asked for


def test_a_row_says_where_it_is(tmp_path: Path) -> None:
    table = open_table(put(tmp_path, 'sep=,\nnote,path\n\n"two\nlines",a.png\n,b.png\n'), ("path",))
    assert [place for place, _ in table.rows([1])] == ["line 4", "line 6"]


def test_columns_go_by_one_name(tmp_path: Path) -> None:
    table = open_table(put(tmp_path, "Class Name,pathId,label,Label\n"), ("path",))
    assert [table.find(name) for name in ("class_name", "PATH-ID", "path")] == [0, 1, None]
    with pytest.raises(UserError, match=r"a column name appears twice \('label' and 'Label'\); rename one"):
        table.find("label")


@pytest.mark.parametrize(
    ("header", "meant"),
    [
        ("filename,x", "if 'filename' is meant, rename it to path"),
        ("id,Image Path", "if 'Image Path' is meant, rename it to path"),
        ("pahts,x", "if 'pahts' is meant, rename it to path"),
        ("x,y", r"\(it has x, y\); expected it"),
        (",".join(f"column {number}" for number in range(1000)), r"column 14, …\); expected it"),
    ],
)
def test_a_column_that_is_not_there(tmp_path: Path, header: str, meant: str) -> None:
    table = open_table(put(tmp_path, header + "\n"), ("path",))
    with pytest.raises(UserError, match=meant) as caught:
        table.require("path", "it", ("image_path", "filename"))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('path,label\na,"b\nc,d\n', r"line 2 is not readable CSV \(unexpected end of data\); close every quote"),
        ('path,label\na,b\nc,"d\ne,"f"\n', "line 3 is not readable CSV"),
        ('path,"label\na,b\n', "line 1 is not readable CSV"),
        ("path,label\na\n", "line 2 has 1 cell but the header has 2; put cells that contain the separator in double"),
        ("path,label\na,b,c\n", "line 2 has 3 cells but the header has 2"),
        ("path,label,,\na,b,c,\n", "line 2 has 3 cells but the header has 2"),  # a cell would be cut without a word
        ("path,label\na,b\nc,\0\n", "line 3 holds a zero byte"),
        ("path,label\na,b\n".encode("utf-16-le"), "line 1 holds a zero byte, so the file is not text; save the table as CSV UTF-8"),
        ("path,label\na,b\nc,größe\n".encode("cp1252"), "line 3 is not UTF-8 text; save the table as CSV UTF-8"),
        ("path,label\ra,b\rc,größe\r".encode("cp1252"), "line 3 is not UTF-8 text"),
        (b"path,label\n" + b"a,b\n" * 50_000 + b"\xff", "line 50002 is not UTF-8 text"),
        ("path,label\n".encode("utf-16") + b"\x00", "line 2 is not UTF-16 text"),
        ("Exported on 1 May\n\n# images, ward 3\npath;label\na;b\n", "line 4 seems to be the header; remove the lines above it"),
        (b"PK\x03\x04" + b"\0" * 100, "not a text table but a workbook"),
    ],
)  # fmt: skip
def test_what_cannot_be_read(tmp_path: Path, content: str | bytes, message: str) -> None:
    file = put(tmp_path, content)
    with pytest.raises(UserError, match=message) as caught:
        cells(open_table(file, ("path", "label")), "path")
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    table = open_table(put(tmp_path, "path,x\n" + "".join(f"{n}.png,{'y' * 100}\n" for n in range(50_000))), ("path",))
    tracemalloc.start()
    deque(table.rows([0, 1]), maxlen=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500_000  # bytes; the file has more than five million


# -- Parquet


def test_parquet_cells_as_csv_has_them(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow.parquet import write_table

    columns = {
        "whole": pa.array([1.0, None]),
        "share": pa.array([0.5, float("nan")]),
        "label": pa.array(["benign", None]).dictionary_encode(),
        "sure": pa.array([True, None]),
        "dose": pa.array([Decimal("2.00"), Decimal("2.50")]),
        "seen": pa.array([datetime.date(2024, 5, 1), None]),
        "at": pa.array([1_700_000_000_123_456_789, None], pa.timestamp("ns")),
        "found": pa.array([["a", "b"], None]),
        "bytes": pa.array([b" x.png", None]),
        "__index_level_0__": pa.array([7, 9]),
    }
    write_table(pa.table(columns), tmp_path / "t.parquet")
    table = open_table(tmp_path / "t.parquet", ())
    assert table.columns == (*list(columns)[:-1], "")
    assert list(table.rows(range(9))) == [
        (
            "row 1",
            ("1", "0.5", "benign", "True", "2", "2024-05-01", "2023-11-14 22:13:20.123456789", "['a', 'b']", "x.png"),
        ),
        ("row 2", ("", "", "", "", "2.50", "", "", "", "")),
    ]
    assert list(table.rows([2, 2])) == [("row 1", ("benign", "benign")), ("row 2", ("", ""))]


def test_parquet_columns_that_differ_in_case(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow.parquet import write_table

    write_table(pa.table({"label": ["a"], "Label": ["b"]}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match="appears twice"):
        open_table(tmp_path / "t.parquet", ()).find("label")


# -- missing values


def test_every_spelling_of_a_missing_value() -> None:
    by_tools = (
        "",
        "NaN",
        "nan",
        "NA",
        "<NA>",
        "NaT",
        "NULL",
        "null",
        "#N/A",
        "#DIV/0!",
        "\\N",
        "N/A",
        "n/a",
        "1.#QNAN",
    )
    by_hand = ("none", "None", "na", "-", "–", "?", "unknown", "Not available")
    assert all(map(is_missing, by_tools + by_hand))
    assert all(map(is_missing_name, (*by_tools, "_", "\u200b\u00ad ")))
    assert not any(map(is_missing_name, by_hand))
    assert not any(map(is_missing, ("0", "no", "Nana", "unknown patient", "negative", "-1")))
