"""The shipped sentences hold to their own rules, and every task finds its sentences or is told why not."""

from __future__ import annotations

import json
import re
from collections import Counter
from importlib import resources
from itertools import combinations
from pathlib import Path

import pytest

from biomedcoop.data import catalogue
from biomedcoop.errors import UserError
from biomedcoop.prompts import sentences_for
from biomedcoop.prompts.library import TEMPLATES

LIBRARY = Path(str(resources.files("biomedcoop.prompts"))) / "library"
FILES = sorted(path.stem for path in LIBRARY.glob("*.json"))

FILLERS = set(
    re.findall(
        r"\w+",
        """a an the of in on at to with and or by from as is are be this that these those its it into than which no not without
        for within through over under between there where while very more most often may can seen shows show appears appear
        image picture""",
    )
)


def read(name: str) -> dict:
    return json.loads((LIBRARY / f"{name}.json").read_text(encoding="utf-8"))


def words(sentence: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", sentence.lower())


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


# -- the shipped files


@pytest.mark.parametrize("name", FILES)
def test_shipped_files_say_what_they_are(name: str) -> None:
    content = read(name)
    assert content["dataset"] == name
    for key in ("modality", "organ", "author", "date"):
        assert content[key].strip()
    assert content["version"] >= 1


@pytest.mark.parametrize("name", FILES)
def test_shipped_files_cover_the_catalogue_in_its_words(name: str) -> None:
    entry = catalogue.find(name)
    if entry is not None:
        assert set(read(name)["classes"]) == set(entry.class_names)
        assert read(name)["modality"] == entry.modality
    assert len(read(name)["classes"]) >= 2


@pytest.mark.parametrize("name", FILES)
def test_shipped_sentences(name: str) -> None:
    classes = read(name)["classes"]
    for label, sentences in classes.items():
        assert len(sentences) == 50, label
        assert len({sentence.lower() for sentence in sentences}) == 50, label
        for sentence in sentences:
            assert 6 <= len(sentence.split()) <= 30, sentence
            assert sentence.isascii(), sentence
            assert sentence[0].isupper(), sentence
            assert sentence.endswith("."), sentence
            others = [other for other in classes if other != label and other.lower() in sentence.lower()]
            assert not others, sentence
        (opening, uses), *_ = Counter(" ".join(words(sentence)[:4]) for sentence in sentences).most_common(1)
        assert uses <= 2, opening
        content = [(set(words(sentence)) - FILLERS, sentence) for sentence in sentences]
        for (a, first), (b, second) in combinations(content, 2):
            assert len(a & b) < 0.5 * len(a | b), f"{label}: {first} | {second}"


def test_datasets_with_sentences() -> None:
    """The tasks that the documentation's results are computed on have sentences of their own."""
    assert {"busi", "btmri", "dermamnist", "kneexray", "retina", "ctkidney"} <= set(FILES)


# -- finding


@pytest.mark.parametrize("name", FILES)
def test_classes_find_their_file_in_label_order(name: str) -> None:
    classes = read(name)["classes"]
    names = [label.upper().replace(" ", "_") for label in reversed(classes)]
    found = sentences_for(names, name)
    assert found.source == f"library: {name}"
    assert found.notes == ()
    assert found.by_class == tuple(tuple(classes[label]) for label in reversed(classes))


def test_names_are_matched_whatever_their_spelling() -> None:
    plain = sentences_for(["benign tumor", "malignant tumor", "normal scan"])
    assert plain.source == "library: busi"
    for names in (
        ["Benign-Tumor", "MALIGNANT_TUMOR", " normal  scan "],
        ["benign_tumor", "malignant-tumor", "Normal Scan"],
    ):
        assert sentences_for(names, "whatever", "library").by_class == plain.by_class
    assert sentences_for(["normal scan", "benign tumor"]).by_class == (plain.by_class[2], plain.by_class[0])


def test_the_datasets_own_file_comes_first() -> None:
    shared = ["normal lungs"]  # chest X-rays of several datasets have it
    holders = [name for name in FILES if "normal lungs" in read(name)["classes"]]
    assert len(holders) > 1
    for name in holders:
        assert sentences_for(shared, name).source == f"library: {name}"
    assert sentences_for(shared).source == sentences_for(shared, "unheard of").source == f"library: {holders[0]}"


def test_a_dataset_whose_file_lacks_a_class_looks_elsewhere() -> None:
    assert sentences_for(["cyst kidney", "normal kidney"], "busi").source == "library: ctkidney"


def test_templates_where_the_library_lacks_a_class() -> None:
    found = sentences_for(["benign tumor", "wrist", "ankle", "elbow", "hip"], "busi")
    assert found.source == "templates"
    assert found.by_class[1] == tuple(template.replace("{}", "wrist") for template in TEMPLATES)
    assert found.by_class[1][0] == "a photo of a wrist."
    (note,) = found.notes
    assert "no sentences for 'wrist', 'ankle', 'elbow' and others" in note
    assert "--prompts FILE" in note


def test_sentences_of_different_tasks_are_never_mixed() -> None:
    names = ["benign tumor", "kidney stone"]
    found = sentences_for(names)
    assert found.source == "templates"
    assert "different tasks" in found.notes[0]
    with pytest.raises(UserError, match="does not cover this task: its classes come from different tasks"):
        sentences_for(names, source="library")


def test_library_only_refuses_what_it_lacks() -> None:
    with pytest.raises(UserError, match=r"does not cover this task: no sentences for 'wrist'; give your own"):
        sentences_for(["benign tumor", "wrist"], "busi", "library")


def test_templates_on_demand() -> None:
    found = sentences_for(["benign tumor", "{curly} %s"], "busi", "templates")
    assert (found.source, found.notes) == ("templates", ())
    assert found.by_class[1][-1] == "{curly} %s."


# -- a user's file


@pytest.mark.parametrize("wrap", [False, True])
def test_a_users_file(wrap: bool, tmp_path: Path) -> None:
    table = {"Cyst": ["round.", "dark."], "left_kidney": ["whole.", "even."], "not asked for": ["x", "y"]}
    path = write(tmp_path / "mine.json", {"modality": "CT", "classes": table} if wrap else table)
    found = sentences_for(["left kidney", "cyst"], "ctkidney", path)
    assert found.by_class == (("whole.", "even."), ("round.", "dark."))
    assert (found.source, found.notes) == ("file: mine.json", ())
    assert sentences_for(["left kidney", "cyst"], "ctkidney", str(path)) == found


def test_classes_are_evened_out_and_that_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.json", {"a": ["1", "2", "3"], "b": ["4", "5"]})
    found = sentences_for(["a", "b"], None, path)
    assert found.by_class == (("1", "2"), ("4", "5"))
    assert found.notes == ("Classes have different numbers of sentences; the first 2 of each are used.",)


def test_a_file_with_a_byte_order_mark(tmp_path: Path) -> None:
    """As some editors write it."""
    path = tmp_path / "mine.json"
    path.write_text('{"köln": ["grün."]}', encoding="utf-8-sig")
    assert sentences_for(["köln"], None, path).by_class == (("grün.",),)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "cannot be used .*want a JSON object"),
        ("{oops", "cannot be used .*want a JSON object"),
        ('["a", "b"]', "want an object of class name to a list of sentences"),
        ("{}", "want an object"),
        ('{"classes": {}}', "want an object"),
        ('{"cyst": []}', "class 'cyst' needs a list of at least one sentence"),
        ('{"cyst": "one sentence"}', "class 'cyst' needs a list"),
        ('{"cyst": ["fine", 3]}', "class 'cyst' needs a list"),
        ('{"cyst": ["fine", "  "]}', "class 'cyst' needs a list"),
        ('{"cyst": ["half \\ud800 a character"]}', "cannot be used .*surrogates"),
        ('{"cyst": ["fine"], "Cyst": ["twice"]}', "cannot be used \\('Cyst' is there twice"),
        ('{"cyst": ["fine"], "cyst": ["twice"]}', "cannot be used \\('cyst' is there twice"),
        ('{"kidney": ["fine"], "spleen": ["fine"]}', "no sentences for class 'cyst'; it has: kidney, spleen"),
        pytest.param("[" * 100_000, "cannot be used .*want a JSON object", id="nested"),
    ],
)
def test_files_that_cannot_be_used(content: str, words: str, tmp_path: Path) -> None:
    path = write(tmp_path / "mine.json", content)
    with pytest.raises(UserError, match=words) as caught:
        sentences_for(["cyst"], None, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(UserError, match="cannot be read"):
            sentences_for(["cyst"], None, path)
    (tmp_path / "latin.json").write_bytes('{"cyst": ["zähflüssig"]}'.encode("latin-1"))
    with pytest.raises(UserError, match=r"latin\.json"):
        sentences_for(["cyst"], None, tmp_path / "latin.json")
    with pytest.raises(UserError, match="prompts libary: cannot be read"):  # a slip of the pen names no file
        sentences_for(["cyst"], None, "libary")
