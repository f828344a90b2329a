"""The shipped sentences hold to their own rules, and every task finds its sentences or is told why not."""

from __future__ import annotations

import json
import shlex
from importlib import resources
from pathlib import Path

import pytest

from biomedcoop.data import catalogue
from biomedcoop.errors import UserError
from biomedcoop.prompts import check_sentences, sentences_for

PROMPTS = Path(str(resources.files("biomedcoop.prompts")))
FILES = sorted(path.stem for path in (PROMPTS / "library").glob("*.json"))
TEMPLATES = json.loads((PROMPTS / "templates.json").read_text(encoding="utf-8"))


def read(name: str) -> dict:
    return json.loads((PROMPTS / "library" / f"{name}.json").read_text(encoding="utf-8"))


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


# -- the shipped files


@pytest.mark.parametrize("name", FILES)
def test_shipped_files_say_what_they_are(name: str) -> None:
    content = read(name)
    assert content["dataset"] == name
    for key in ("modality", "organ", "author", "date", "reviewed"):
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
    assert check_sentences(classes) == []
    for label, sentences in classes.items():
        assert len(sentences) == 50, label
        for sentence in sentences:
            assert sentence.isascii(), sentence
            assert sentence[0].isupper(), sentence
            assert sentence.endswith("."), sentence
            assert "{" not in sentence, sentence


@pytest.mark.parametrize("modality", TEMPLATES)
def test_shipped_templates(modality: str) -> None:
    templates = TEMPLATES[modality]
    assert len(templates) >= 8
    assert len({template.casefold() for template in templates}) == len(templates)
    for template in templates:
        assert template.count("{}") == 1, template
        assert template.count("{") == template.count("}") == 1, template
        assert template == " ".join(template.split()), template


def test_every_modality_has_templates() -> None:
    shown = {entry.modality for entry in catalogue.entries()} | {read(name)["modality"] for name in FILES}
    assert shown - {"several"} <= set(TEMPLATES)
    assert "general" in TEMPLATES


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
    names = ["benign tumor", "wrist", "ankle", "elbow", "hip"]
    found = sentences_for(names, "busi")
    assert found.source == "templates: general"
    assert found.by_class[1] == tuple(template.replace("{}", "wrist") for template in TEMPLATES["general"])
    assert found.by_class[1][0] == "a photo of a wrist."
    (note,) = found.notes
    assert note.startswith(
        "Templates (general) are used in place of sentences: no sentences for 'wrist', 'ankle', 'elbow', 'hip'; "
    )
    assert "--prompts FILE" in note
    assert "--modality MODALITY --organ ORGAN" in note


@pytest.mark.parametrize(
    ("modality", "chosen"),
    [
        ("CT", "CT"),
        ("x ray", "X-ray"),
        ("FUNDUS_photography", "fundus photography"),
        ("several", "general"),
        (None, "general"),
    ],
)
def test_the_modality_chooses_the_templates(modality: str | None, chosen: str) -> None:
    for source in ("auto", "templates"):
        found = sentences_for(["wrist", "hip"], None, source, modality, "arm")
        assert found.source == f"templates: {chosen}"
        assert found.by_class[0] == tuple(template.replace("{}", "wrist") for template in TEMPLATES[chosen])


def test_the_way_out_is_a_command_that_generates_all_classes() -> None:
    (note,) = sentences_for(
        ["benign tumor", "Crohn's disease"], None, "auto", "optical coherence tomography", "eye"
    ).notes
    command = shlex.split(note[note.index("biomedcoop prompts") :].rstrip("."))
    assert command[:3] == ["biomedcoop", "prompts", "generate"]
    assert dict(zip(command[3::2], command[4::2], strict=True)) == {
        "--classes": "benign tumor, Crohn's disease",
        "--modality": "optical coherence tomography",
        "--organ": "eye",
        "--out": "words.json",
    }


def test_sentences_of_different_tasks_are_never_mixed() -> None:
    names = ["benign tumor", "kidney stone"]
    found = sentences_for(names)
    assert found.source == "templates: general"
    assert "different tasks" in found.notes[0]
    with pytest.raises(UserError, match="does not cover this task: its classes come from different tasks"):
        sentences_for(names, source="library")


def test_library_only_refuses_what_it_lacks() -> None:
    with pytest.raises(
        UserError, match=r"does not cover this task: no sentences for 'wrist', 'hip'; give your own"
    ) as caught:
        sentences_for(["benign tumor", "wrist", "hip"], "busi", "library")
    assert "biomedcoop prompts generate --classes" in str(caught.value)


def test_one_file_of_the_library() -> None:
    found = sentences_for(["Normal_Kidney", "kidney stone"], "busi", "library:ctkidney")
    table = read("ctkidney")["classes"]
    assert found.source == "library: ctkidney"
    assert found.by_class == (tuple(table["normal kidney"]), tuple(table["kidney stone"]))
    with pytest.raises(
        UserError, match=r"^library:busi: no sentences for 'kidney stone', 'hip'; it has: .*benign tumor"
    ):
        sentences_for(["benign tumor", "kidney stone", "hip"], None, "library:busi")
    with pytest.raises(UserError, match=r"has no file 'bussi'; did you mean busi\?"):
        sentences_for(["benign tumor"], None, "library:bussi")
    with pytest.raises(UserError, match=r"has no file 'zzz'; it has: .*busi, "):
        sentences_for(["benign tumor"], None, "library:zzz")


def test_templates_on_demand() -> None:
    found = sentences_for(["benign tumor", "{curly} {} %s"], "busi", "templates")
    assert (found.source, found.notes) == ("templates: general", ())
    assert found.by_class[1][-1] == "{curly} {} %s."
    found = sentences_for(["benign tumor", "wrist"], "busi", "templates:x_ray", "ultrasound")
    assert found.source == "templates: X-ray"
    assert found.by_class[1][0] == TEMPLATES["X-ray"][0].replace("{}", "wrist")
    with pytest.raises(UserError, match="no templates for the modality 'xray'; there are: general, CT, MRI, X-ray"):
        sentences_for(["wrist"], None, "templates:xray")


# -- a user's file


@pytest.mark.parametrize("wrap", [False, True])
def test_a_users_file(wrap: bool, tmp_path: Path) -> None:
    table = {"Cyst": ["round.", "dark."], "left_kidney": ["whole.", "even."], "not asked for": ["x", "y"]}
    path = write(tmp_path / "mine.json", {"modality": "CT", "classes": table} if wrap else table)
    found = sentences_for(["left kidney", "cyst"], "ctkidney", path)
    assert found.by_class == (("whole.", "even."), ("round.", "dark."))
    assert (found.source, found.notes) == ("file: mine.json", ())
    assert sentences_for(["left kidney", "cyst"], "ctkidney", str(path)) == found


def test_a_users_sentences_with_a_place_for_the_class_name(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.json", {"left_kidney": ["A {} on CT, {}."], "cyst": ["Round."]})
    assert sentences_for(["Left Kidney", "cyst"], None, path).by_class == (
        ("A Left Kidney on CT, Left Kidney.",),
        ("Round.",),
    )


def test_other_forms(tmp_path: Path) -> None:
    """Each is tested in test_sources.py; here, that they are asked for by their path alone."""
    table = {"cyst": ["Round."], "stone": ["Sharp."]}
    write(tmp_path / "a.csv", "class,sentence\ncyst,Round.\nstone,Sharp.\n")
    write(tmp_path / "a.py", f"A = {table}\nB = {{'b': ['b']}}\n")
    (tmp_path / "library").mkdir()  # a folder may be called anything
    for name, (sentence,) in table.items():
        write(tmp_path / "library" / f"{name}.txt", sentence)
    for source, name in (("a.csv", "a.csv"), ("a.py:A", "a.py"), ("library", "library")):
        found = sentences_for(["stone", "cyst"], "busi", f"{tmp_path}/{source}")
        assert (found.by_class, found.source) == ((("Sharp.",), ("Round.",)), f"file: {name}")


def test_a_users_templates(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.txt", "a scan of {}.\n\n{}, again {}\n")
    found = sentences_for(["stone", "left {} cyst"], "busi", path, "CT")
    assert found.by_class == (
        ("a scan of stone.", "stone, again stone"),
        ("a scan of left {} cyst.", "left {} cyst, again left {} cyst"),
    )
    assert (found.source, found.notes) == ("templates: mine.txt", ())


def test_all_missing_classes_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.json", {"cyst": ["Round."]})
    with pytest.raises(UserError) as caught:
        sentences_for(["cyst", "stone", "tumor"], None, path, "CT", "kidney")
    assert str(caught.value).startswith(
        f"prompts {path}: no sentences for 'stone', 'tumor'; it has: cyst; give your own"
    )
    assert "--classes 'cyst, stone, tumor' --modality CT --organ kidney" in str(caught.value)
    with pytest.raises(UserError, match=r"for 'c0', 'c1', 'c2', 'c3', 'c4' and others; it has"):
        sentences_for([f"c{n}" for n in range(9)], None, path)


def test_classes_are_evened_out_and_that_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.json", {"a": ["1", "2", "3"], "b": ["4", "5"]})
    found = sentences_for(["a", "b"], None, path)
    assert found.by_class == (("1", "2"), ("4", "5"))
    assert found.notes == ("Classes have different numbers of sentences; the first 2 of each are used.",)


def test_a_source_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"prompts {tmp_path}/none.json: cannot be read"):
        sentences_for(["cyst"], None, tmp_path / "none.json")
    with pytest.raises(UserError, match="prompts libary: cannot be read"):  # a slip of the pen names no file
        sentences_for(["cyst"], None, "libary")
