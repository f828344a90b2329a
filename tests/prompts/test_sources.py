"""Sentences in every form that is read, and what is said of those that cannot be used. Nothing is executed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from biomedcoop.errors import UserError
from biomedcoop.prompts.sources import read_table, read_templates
from biomedcoop.prompts.writing import check_output, write_table

TABLE = {"cyst": ["Round, dark.", 'A "halo" of fat.'], "kidney stone": ["Bright; sharp.", "Größe: 3 µm."]}
JSON = json.dumps(TABLE)
CSV = """class,sentence
cyst,"Round, dark."
cyst,"A ""halo"" of fat."
kidney stone,Bright; sharp.
kidney stone,Größe: 3 µm.
"""


TSV = "id\tsentence\tclass\n" + "".join(
    f'1\t"{sentence.replace(chr(34), 2 * chr(34))}"\t{name}\n' for name in TABLE for sentence in TABLE[name]
)


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(source: str | Path) -> str:
    with pytest.raises(UserError) as caught:
        read_table(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- what is read


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.json", JSON),
        ("t.JSON", json.dumps({"modality": "CT", "classes": TABLE}, indent=2)),
        ("t.json", b"\xef\xbb\xbf" + JSON.encode()),
        ("t.csv", CSV),
        ("t.csv", b"\xef\xbb\xbf" + CSV.replace("\n", "\r\n").encode()),
        ("t.csv", CSV.replace("class,sentence", " Class , SENTENCE ").replace(",Bright", ",  Bright")),
        ("t.csv", CSV.replace("\n", ",x\n").replace(",x", ",note", 1)),
        ("t.csv", CSV.replace("\n", "\n\n")),
        (
            "t.csv",
            b"\xef\xbb\xbf"
            + CSV.replace("class,", "class;")
            .replace("cyst,", "cyst;")
            .replace("stone,", "stone;")
            .replace("Bright; sharp.", '"Bright; sharp."')
            .encode(),
        ),
        ("t.csv", CSV.replace("Round, dark", "Round,\n dark")),
        ("t.csv", CSV.replace("\nkidney stone,G", "\nKidney_Stone,G")),
        ("t.tsv", TSV),
        ("t.csv", "sep=\t\r\n" + TSV),
        ("t.csv", CSV.encode("utf-16")),
        ("t.csv", CSV.replace('cyst,"', 'cyst, "').replace("\n", "\r").encode()),
        (
            "t.csv",
            CSV.replace("class,", '"class, in words",Class,').replace("cyst,", "x,cyst,").replace("kidney", "x,kidney"),
        ),
        ("t.py", f"TEMPLATES = {TABLE!r}"),
        ("t.py", f"import nowhere\nTEMPLATES: dict[str, list[str]] = {TABLE!r}\nOTHER = {{'a': 1}}\nprint(TEMPLATES)"),
        (
            "t.py",
            "T = {'cyst': ('Round, '\n 'dark.', 'A \"halo\" of fat.'), 'kidney stone': "
            + f"{TABLE['kidney stone']!r}}}",
        ),
        ("t.py", f"'Words.'\n\ndef f():\n    return {{}}\n\nT = {TABLE!r}\nN = {{'a': 'b'}}\nE = {{}}\n"),
    ],
)
def test_files_that_say_the_same(name: str, content: str | bytes, tmp_path: Path) -> None:
    assert read_table(put(tmp_path / name, content)) == TABLE
    assert read_table(str(tmp_path / name)) == TABLE


def test_a_folder_with_a_file_per_class(tmp_path: Path) -> None:
    put(tmp_path / "cyst.txt", b"\xef\xbb\xbf" + "\r\n\r\n".join(TABLE["cyst"]).encode())
    put(tmp_path / "kidney stone.txt", "".join(f"  {s}\n" for s in TABLE["kidney stone"]))
    put(tmp_path / "README.md", "not a class")
    put(tmp_path / "._cyst.txt", b"\x00\x05\x16\x07\xff")  # as a Mac leaves it on a stick
    assert read_table(tmp_path) == TABLE
    put(tmp_path / "stone.txt", "\n")
    assert "class 'stone' needs a list of at least one sentence" in refusal(tmp_path)


def test_one_of_several_dicts(tmp_path: Path) -> None:
    path = put(tmp_path / "words.py", f"A = {{'a': ['x']}}\nB = {TABLE!r}\nC = {{'c': [str(1)]}}\n")
    assert read_table(f"{path}:A") == {"a": ["x"]}
    assert read_table(f"{path}:B") == TABLE
    assert refusal(path).endswith(f"{path}: holds several dicts of sentences; choose one of words.py:A, words.py:B")
    assert refusal(f"{path}:D").endswith(f"{path}: no dict D of lists of strings; it has: A, B")
    assert f"{path}, line 3: C is computed, but no code is executed here" in refusal(f"{path}:C")


def test_a_module_is_never_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    trap = f"open({str(tmp_path / 'trace')!r}, 'w')"
    path = put(
        tmp_path / "words.py",
        f"{trap}\nclass X:\n    {trap}\nT = {TABLE!r}\nprint('hello')\nU = {{'a': [{trap}]}}\n{{'a': [{trap}]}}\nexit()\n",
    )
    assert read_table(path) == TABLE
    assert "line 6: U is computed" in refusal(f"{path}:U")
    put(path, f"T = {{{trap}: ['a']}}")
    assert "line 1: T is computed" in refusal(path)
    assert [p.name for p in tmp_path.iterdir()] == ["words.py"]
    assert capfd.readouterr() == ("", "")


# -- what cannot be used


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.json", "", "want a JSON object of class name to sentences"),
        ("t.json", "{oops", "want a JSON object of class name to sentences"),
        pytest.param("t.json", "[" * 100_000, "want a JSON object of class name to sentences", id="nested JSON"),
        ("t.json", "{}", "want an object of class name to a list of sentences"),
        ("t.json", '{"classes": {}}', "want an object of class name to a list of sentences"),
        ("t.json", "[1]", "want an object of class name to a list of sentences"),
        ("t.json", '{"cyst": "one sentence"}', "class 'cyst' needs a list of sentences that are not empty"),
        ("t.json", '{"cyst": ["a", 3]}', "class 'cyst' needs a list of sentences that are not empty"),
        ("t.json", '{"cyst": ["a"], "cyst": ["b"]}', "('cyst' is there twice)"),
        ("t.json", '{"cyst": {"a": "b"}}', "class 'cyst' needs a list of sentences that are not empty"),
        ("t.json", '{"cyst": ["a", " "]}', "class 'cyst' needs a list of sentences that are not empty"),
        ("t.json", '{"cyst": []}', "class 'cyst' needs a list of at least one sentence"),
        ("t.json", '{"left kidney": ["a"], "Left_Kidney": ["b"]}', "('Left_Kidney' is there twice)"),
        ("t.json", '{"cyst": ["half \\ud800"]}', "class 'cyst' cannot be used ('utf-8' codec can't encode"),
        ("t.json", '{"half \\ud800": ["a"]}', "class 'half \\ud800' cannot be used"),
        ("t.json", "{'cyst': ['a']}", "cannot be used (Expecting property name"),
        ("t.csv", "", "no column 'class' (it has nothing); expected the columns class and sentence"),
        ("t.csv", "cyst,A dark spot.\n", "no column 'class' (it has cyst, A dark spot.)"),
        ("t.csv", "name;text\ncyst;a\n", "no column 'class' (it has name, text); if 'name' is meant, rename it to class"),
        ("t.csv", "class,sentence\n", "holds no sentences"),
        ("t.csv", "class,sentence\ncyst,a\ncyst,round, dark\n", "line 3 has 3 cells but the header has 2; put cells"),
        ("t.csv", "class,sentence\ncyst,a\n\ncyst,\n", "line 4 has an empty sentence"),
        ("t.csv", "class,sentence\ncyst\n", "line 2 has 1 cell but the header has 2"),
        ("t.csv", "class,sentence\nNaN,a\n", "line 2 has an empty class"),
        ("t.csv", "class,sentence,,\ncyst,round, dark,\n", "line 2 has 3 cells but the header has 2"),
        ("t.csv", "class,sentence\n ,a\n", "line 2 has an empty class"),
        # without a word, the rest of the file would be one sentence of this class
        ("t.csv", 'class,sentence\ncyst,"a\nstone,b\n', "line 2 is not readable CSV (unexpected end of data); close every quote"),
        ("t.csv", '"class,sentence\ncyst,"a"\n', "line 1 is not readable CSV"),
        ("t.csv", "class,sentence\ncyst," + "x" * 200_000, "line 2 is not readable CSV (field larger"),
        ("t.csv", "class,sentence\ncyst,zähflüssig".encode("latin-1"), "line 2 is not UTF-8 text; save the table as CSV UTF-8"),
        ("t.py", "T = {'a': ['x'], 'b': ['y'], 'a': ['z']}", "line 1: 'a' is there twice in T; keep one"),
        ("t.py", "\n\nT = {'a': [f'{1}']}", "line 3: T is computed, but no code is executed here; write it as plain strings"),
        ("t.py", "\nT = {**BASE, 'b': ['y']}", "line 2: T is computed"),
        ("t.py", "T = {'a': 'x'}", "no dict of lists of strings at its top level"),
        ("t.py", "T = dict(a=['x'])", "no dict of lists of strings at its top level"),
        ("t.py", "def f():\n    T = {'a': ['x']}", "no dict of lists of strings at its top level"),
        ("t.py", "T = {'a': ['x', 1]}", "class 'a' needs a list of sentences that are not empty"),
        ("t.py", "T = {'a': ['half \\ud800']}", "class 'a' cannot be used"),
        ("t.py", "x = 1\nT = {", "line 2: is not a Python file ('{' was never closed"),
        ("t.py", "T = \0", "is not a Python file"),
        pytest.param("t.py", "T = " + "[" * 100_000, "is not a Python file", id="nested Python"),
        ("t.txt", "a scan of {}.", "templates belong to no class; use them with 'train --prompts"),
        ("t.xlsx", b"PK\x03\x04\xff\xfe", "unknown kind of file '.xlsx'; want a JSON object"),
        ("t", "a", "unknown kind of file ''; want a JSON object"),
    ],
)  # fmt: skip
def test_what_cannot_be_used(name: str, content: str | bytes, message: str, tmp_path: Path) -> None:
    said = refusal(put(tmp_path / name, content))
    assert said.startswith(f"prompts {tmp_path / name}")
    assert message in said


def test_what_is_not_there(tmp_path: Path) -> None:
    for name in ("none.json", "none.csv", "none.py", "none.py:T", "none", "none.xlsx"):
        assert f"{name.split(':')[0]}: cannot be read (No such file" in refusal(f"{tmp_path}/{name}")
    assert f"prompts {tmp_path}: no .txt file there; put one per class" in refusal(tmp_path)
    (tmp_path / "cyst.txt").mkdir()
    assert "cannot be read (Is a directory)" in refusal(tmp_path)


def test_odd_escapes_are_no_business_of_the_user(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    assert read_table(put(tmp_path / "t.py", "T = {'a': ['1\\d']}")) == {"a": ["1\\d"]}
    assert len(recwarn) == 0


# -- templates


def test_templates(tmp_path: Path) -> None:
    path = put(tmp_path / "t.txt", b"\xef\xbb\xbf" + b"a scan of {}.\r\n\r\n  {} and {}, {x}  \r\n")
    assert read_templates(path) == ["a scan of {}.", "{} and {}, {x}"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ": holds no templates; write one a line, with {} where the class name belongs"),
        (" \n\n", ": holds no templates"),
        (
            "a {}.\n\na scan.\n",
            ", line 3: no {} where the class name belongs; for sentences of one class, give a folder",
        ),
        ("a { }.", ", line 1: no {} where"),
        (b"\xff\xfe", ": cannot be used ("),
        (None, ": cannot be read (No such file"),
    ],
)
def test_templates_that_cannot_be_used(content: str | bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    if content is not None:
        put(path, content)
    with pytest.raises(UserError) as caught:
        read_templates(path)
    assert str(caught.value).startswith(f"prompts {path}{message}")
    assert "\n" not in str(caught.value)


# -- writing


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    write_table(path, TABLE, {"modality": "CT", "organ": None, "version": 1})
    assert read_table(path) == TABLE
    assert json.loads(path.read_text(encoding="utf-8")) == {"modality": "CT", "version": 1, "classes": TABLE}
    assert "µm" in path.read_text(encoding="utf-8")  # for a person to read
    before = path.read_bytes()
    write_table(path, read_table(path), {"modality": "CT", "version": 1})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_where_sentences_are_written(tmp_path: Path) -> None:
    there = put(tmp_path / "there.json", "{}")
    (tmp_path / "folder.json").mkdir()
    for name, message in (
        ("new.csv", "sentences are written as JSON; give a name that ends with .json"),
        ("new", "give a name that ends with .json"),
        ("folder.json", "folder.json is a folder; name a file"),
        ("there.json", "there.json exists already; choose another name or pass overwrite=True"),
        ("nowhere/new.json", "nowhere is not a folder; create it first or choose another place"),
        ("there.json/new.json", "there.json is not a folder"),
    ):
        with pytest.raises(UserError, match=message):
            check_output(tmp_path / name, overwrite=False)
    check_output(tmp_path / "new.json", overwrite=False)
    check_output(there, overwrite=True)
    assert there.read_text() == "{}"
