"""Images to predict, as files, folders and tables name them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

import biomedcoop as bc
from biomedcoop.data.readers.unlabelled import ListedImage, find_images


@pytest.fixture(scope="module")
def test_images(discs: Path) -> list[Path]:
    """The test images, sorted as a search of their folder finds them."""
    return sorted((discs / "test").rglob("*.png"))


def listed(table: Path, keep: Sequence[str] = ()) -> list[tuple[str, Path]]:
    """Path as the table gives it, and the file, of each image."""
    images = list(find_images([table], keep=keep))
    assert all(isinstance(image, ListedImage) for image in images)
    return [(image.path, image.file) for image in images if isinstance(image, ListedImage)]


def refusal(*inputs: Path) -> str:
    with pytest.raises(bc.UserError) as caught:
        list(find_images(inputs))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_and_folders_in_the_order_given(discs: Path, test_images: list[Path]) -> None:
    last, folder = test_images[-1], discs / "test" / "green_tumor"
    assert list(find_images([last, folder])) == [last, *(image for image in test_images if image.parent == folder)]
    assert list(find_images([discs / "test"])) == test_images


def test_a_folder_is_searched_for_images_only(tmp_path: Path, test_images: list[Path]) -> None:
    for place in ("b/deep/er/2.PNG", "b/1.png", ".hidden/3.png", "b/.4.png", "a.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(test_images[0], tmp_path / place)
    (tmp_path / "notes.txt").write_text("")
    assert [path.relative_to(tmp_path).as_posix() for path in find_images([tmp_path])] == [
        "a.png",
        "b/1.png",
        "b/deep/er/2.PNG",
    ]


def test_a_folder_is_searched_as_for_training(tmp_path: Path, test_images: list[Path]) -> None:
    for place in ("a.png", "a_mask.png", "b/1.png", "b/masks/1.png", "@eaDir/a.png", "lost+found/1.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(test_images[0], tmp_path / place)
    (tmp_path / "b" / "loop").symlink_to("..")
    (tmp_path / "b" / "scan.txt").touch()
    told: list[str] = []
    assert list(find_images([tmp_path], tell=told.append)) == [tmp_path / "a.png", tmp_path / "b" / "1.png"]
    assert told == [
        f"1 file in {tmp_path.name} is not an image and was ignored (.txt: 1)",
        f"a mask beside the images in {tmp_path.name} was left out, first {tmp_path.name}/a_mask.png",
        "the folder masks in b holds masks and was left out (files: 1)",
    ]


def test_names_that_are_no_utf8(tmp_path: Path, test_images: list[Path]) -> None:
    bad = tmp_path / os.fsdecode(b"d") / os.fsdecode(b"b\xe4.png")
    bad.parent.mkdir()
    shutil.copy(test_images[0], bad)
    for given in (bad, bad.parent):
        assert r"b\udce4.png': the name is not UTF-8, so no table or report can hold it; rename it" in refusal(given)


@pytest.mark.parametrize(
    "text",
    [
        "path\na.png\nb c/d.png\n",
        "patient,Path\n7,a.png\n8,b c/d.png\n",
        "path;note\na.png;x,y\nb c/d.png;\n\n",
        'path\ta\n"a.png"\t1\n"b c/d.png"\t2\n',
        "\ufeffpath,x\r\na.png,1\r\nb c/d.png,2\r\n",
        "sep=;\r\npath;x\r\na.png;1\r\nb c/d.png;2\r\n",
        '"site, ward",path,previous\n"A, 1",a.png,x.png\nB, "b c/d.png",y.png\n',
        "path|x;y;z\na.png|1\nb c/d.png|2\n",
        "path;label;;\na.png;x;;\nb c/d.png;y;;\n;;;\n",
        ",path,path2\r0,a.png,\r1,b c/d.png,\r",
    ],
)
def test_tables_as_people_save_them(tmp_path: Path, text: str) -> None:
    table = tmp_path / "list.csv"
    table.write_bytes(text.encode())
    assert listed(table) == [("a.png", tmp_path / "a.png"), ("b c/d.png", tmp_path / "b c" / "d.png")]


def test_a_parquet_table_and_absolute_paths(tmp_path: Path, test_images: list[Path]) -> None:
    table = tmp_path / "list.parquet"
    parquet.write_table(pa.table({"n": [1, 2], "path": [str(test_images[0]), "x.png"]}), table)
    assert listed(table) == [(str(test_images[0]), test_images[0]), ("x.png", tmp_path / "x.png")]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "t.csv",
            b"file,label\na.png,1\n",
            "no column 'path' (it has file, label); if 'file' is meant, rename it to path",
        ),
        ("t.csv", b"", "no column 'path' (it has nothing)"),
        ("t.csv", b"path\n", "lists no image"),
        ("t.csv", b"label,path\nx,a.png\ny\n", "line 3 has 1 cell but the header has 2"),
        ("t.csv", b"label,path\nx,a.png\ny,NaN\n", "line 3 has an empty path"),
        ("t.csv", b'path,label\n"a.png\nb.png",x\n', "line 2 has a line break in its path"),
        ("t.csv", b'path,label\na.png,x\n"b.png,y\nc.png,z\n', "line 3 is not readable CSV"),
        ("t.csv", b"path\na\xff.png\n", "line 2 is not UTF-8"),
        ("t.parquet", b"PAR1 no longer", "not a readable Parquet file"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path / name)
    assert words in message
    assert str(tmp_path / name) in message


def test_a_parquet_table_without_paths(tmp_path: Path) -> None:
    table = tmp_path / "list.parquet"
    parquet.write_table(pa.table({"label": [1]}), table)
    assert "no column 'path' (it has label)" in refusal(table)
    parquet.write_table(pa.table({"path": ["a.png", None]}), table)
    assert "row 2 has an empty path" in refusal(table)


def test_nothing_there(tmp_path: Path) -> None:
    assert f"{tmp_path / 'no.png'} does not exist" in refusal(tmp_path / "no.png")
    assert f"{tmp_path} holds no image" in refusal(tmp_path)
    (tmp_path / "scan.txt").touch()
    assert "is not an image and was ignored (.txt: 1)" in refusal(tmp_path)


def test_paths_from_another_system(tmp_path: Path, test_images: list[Path]) -> None:
    (tmp_path / "bénin").mkdir()  # composed; the table has it decomposed, as macOS writes it
    image = shutil.copy(test_images[0], tmp_path / "bénin" / "a.png")
    table = tmp_path / "list.csv"
    table.write_text("path\nbe\u0301nin\\a.png\n", encoding="utf-8")
    assert listed(table) == [("be\u0301nin\\a.png", image)]
