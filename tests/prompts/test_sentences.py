"""Every task finds its sentences, from the library, a user's file or templates, or is told why not; no other organ's are taken."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from biomedcoop.backbones.base import Backbone
from biomedcoop.errors import UserError
from biomedcoop.prompts import sentences_for
from biomedcoop.prompts.library import library, template_sets
from biomedcoop.prompts.sentences import length_notes

LIBRARY = library()
TEMPLATES = template_sets()


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


# -- finding


@pytest.mark.parametrize("name", LIBRARY)
def test_classes_find_their_file_in_label_order(name: str) -> None:
    classes = LIBRARY[name]["classes"]
    names = [label.upper().replace(" ", "_") for label in reversed(classes)]
    found = sentences_for(names, name)
    assert found.source == f"library: {name}"
    assert found.notes == ()
    assert found.by_class == tuple(tuple(classes[label]) for label in reversed(classes))


def test_names_are_matched_whatever_their_spelling() -> None:
    plain = sentences_for(["benign tumor", "malignant tumor", "normal scan"], "busi")
    assert plain.source == "library: busi"
    for names in (
        ["Benign-Tumor", "MALIGNANT_TUMOR", " normal  scan "],
        ["benign_tumor", "malignant-tumor", "Normal Scan"],
    ):
        assert sentences_for(names, "whatever", "library", "ultrasound", "breast").by_class == plain.by_class
    assert sentences_for(["normal scan", "benign tumor"], "BUSI").by_class == (plain.by_class[2], plain.by_class[0])


def test_the_datasets_own_file_comes_first() -> None:
    shared = ["normal lungs"]  # chest X-rays of several datasets have it
    holders = [name for name in LIBRARY if "normal lungs" in LIBRARY[name]["classes"]]
    assert len(holders) > 1
    for name in holders:
        assert sentences_for(shared, name).source == f"library: {name}"
        assert sentences_for(shared, name, "auto", "X-ray", "chest").source == f"library: {name}"
    for kind in ((None, None), ("X-ray", "chest")):
        found = sentences_for(shared, "unheard of", "auto", *kind)
        assert found.source.startswith("templates")
        assert all(f"--prompts library:{name}" in found.notes[0] for name in holders)


KIDNEYS = ["cyst kidney", "normal kidney"]


@pytest.mark.parametrize(
    ("dataset", "modality", "organ"),
    [
        ("ctkidney", None, None),
        ("CT_Kidney", None, None),  # an alias of the catalogue
        ("ctkidney", "computed tomography", None),
        ("scans", "CT", "kidney"),
        (None, "CT scan", "kidneys"),
        (None, "ct", "Renal"),
    ],
)
def test_sentences_of_the_same_kind_of_images(dataset: str | None, modality: str | None, organ: str | None) -> None:
    for source in ("auto", "library"):
        found = sentences_for(KIDNEYS, dataset, source, modality, organ)
        assert (found.source, found.origin) == ("library: ctkidney", "library: ctkidney (CT, kidney)")
        assert (found.chosen, found.notes) == (True, ())
        assert found.by_class == tuple(tuple(LIBRARY["ctkidney"]["classes"][name]) for name in KIDNEYS)


@pytest.mark.parametrize(
    ("dataset", "modality", "organ", "options"),
    [
        ("scans", None, None, "--modality CT --organ kidney"),
        ("busi", None, None, "--modality CT --organ kidney"),
        (None, "CT", None, "--organ kidney"),
        (None, None, "kidney", "--modality CT"),
    ],
)
def test_class_names_alone_never_decide(
    dataset: str | None, modality: str | None, organ: str | None, options: str
) -> None:
    found = sentences_for(KIDNEYS, dataset, "auto", modality, organ)
    assert found.source == f"templates: {modality or 'general'}"
    (note,) = found.notes
    assert "library:ctkidney (CT, kidney) has classes of these names, but it is unknown what your images show" in note
    assert f"add --prompts library:ctkidney (or, for train, {options})" in note
    with pytest.raises(
        UserError, match=r"does not cover this task: library:ctkidney \(CT, kidney\) has classes of these"
    ) as caught:
        sentences_for(KIDNEYS, dataset, "library", modality, organ)
    assert "add prompts='library:ctkidney'" in str(caught.value)


@pytest.mark.parametrize(
    ("dataset", "modality", "organ"),
    [("scans", "CT", "liver"), ("scans", "MRI", None), (None, None, "breast"), ("ctkidney", "ultrasound", "kidney")],
)
def test_sentences_of_another_kind_of_images_are_never_offered(
    dataset: str | None, modality: str | None, organ: str | None
) -> None:
    found = sentences_for(KIDNEYS, dataset, "auto", modality, organ)
    assert found.source.startswith("templates")
    assert "has classes of these names, but your images are of another kind" in found.notes[0]
    assert "--prompts library" not in found.notes[0]
    with pytest.raises(UserError, match="of another kind"):
        sentences_for(KIDNEYS, dataset, "library", modality, organ)
    asked_for = sentences_for(KIDNEYS, dataset, "library:ctkidney", modality, organ)
    assert asked_for.source == "library: ctkidney"
    assert "is used for images of another kind" in asked_for.notes[0]


def test_images_of_several_kinds_are_known_by_their_dataset_alone() -> None:
    names = ["chest CT", "abdomen CT"]
    assert sentences_for(names, "mednist").origin == "library: mednist (several kinds)"
    (note,) = sentences_for(names).notes
    assert "add --prompts library:mednist; else" in note


def test_near_names_are_offered() -> None:
    names = ["benign", "malignant", "Normal"]
    for dataset, modality in ((None, None), ("BUSI", None), ("scans", "ultrasound")):
        found = sentences_for(names, dataset, "auto", modality)
        assert found.source.startswith("templates")
        (note,) = found.notes
        assert "library:busi (ultrasound, breast) has 'benign tumor', 'malignant tumor', 'normal scan'" in note
        assert "no file of the library has all these class names, but" in note
        assert "add --prompts library:busi;" in note
        assert "--classes 'benign, malignant, Normal'" in note
    (note,) = sentences_for(["NORMAL", "PNEUMONIA"]).notes
    assert "add --prompts library:covid or --prompts library:pneumoniamnist;" in note
    assert "library:busi" not in sentences_for(names, None, "auto", "MRI", "breast").notes[0]
    with pytest.raises(UserError, match="add prompts='library:busi'"):
        sentences_for(names, source="library")


def test_near_names_are_taken_when_the_file_is_named() -> None:
    classes = LIBRARY["busi"]["classes"]
    found = sentences_for(["normal", "benign", "malignant_tumor"], "scans", "library:busi")
    assert found.by_class == tuple(tuple(classes[name]) for name in ("normal scan", "benign tumor", "malignant tumor"))
    assert found.notes == (
        "Classes take the sentences of library:busi by a part of the name: 'normal' those of 'normal scan', 'benign' those of "
        "'benign tumor'.",
    )
    for names, message in (
        (
            ["benign", "adenocarcinoma"],
            "'benign' may be 'colon benign tissue' or 'lung benign tissue'; rename the class to the one",
        ),
        (
            ["squamous", "carcinoma"],
            "'squamous' and 'carcinoma' would both take the sentences of 'lung squamous cell carcinoma'",
        ),
        (["squamous", "wrist"], "no sentences for 'wrist'; it has: colon adenocarcinoma"),
    ):
        with pytest.raises(UserError, match=f"^library:lungcolon: {message}"):
            sentences_for(names, None, "library:lungcolon")


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
        ("chest radiograph", "X-ray"),
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


def test_a_modality_without_templates_is_said() -> None:
    for source in ("auto", "templates"):
        found = sentences_for(["wrist", "hip"], None, source, "holography", "arm")
        assert found.source == "templates: general"
        assert found.notes[-1].startswith("No templates are written for the modality 'holography'; ")


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
    table = LIBRARY["ctkidney"]["classes"]
    assert found.source == "library: ctkidney"
    assert found.by_class == (tuple(table["normal kidney"]), tuple(table["kidney stone"]))
    with pytest.raises(
        UserError, match=r"^library:busi: no sentences for 'kidney stone', 'hip'; it has: .*benign tumor"
    ):
        sentences_for(["benign tumor", "kidney stone", "hip"], None, "library:busi")
    with pytest.raises(UserError, match=r"has no file 'bussi'; did you mean busi\?"):
        sentences_for(["benign tumor"], None, "library:bussi")
    with pytest.raises(UserError, match=r"has no file 'zzz'; known: .*busi, "):
        sentences_for(["benign tumor"], None, "library:zzz")


def test_templates_on_demand() -> None:
    found = sentences_for(["benign tumor", "{curly} {} %s"], "busi", "templates")
    assert (found.source, found.notes) == ("templates: general", ())
    assert found.by_class[1][-1] == "{curly} {} %s."
    for name in ("x_ray", "radiography"):
        found = sentences_for(["benign tumor", "wrist"], "busi", f"templates:{name}", "ultrasound")
        assert found.source == "templates: X-ray"
        assert found.by_class[1][0] == TEMPLATES["X-ray"][0].replace("{}", "wrist")
    with pytest.raises(
        UserError, match="no templates for the modality 'holography'; there are: general, CT, MRI, X-ray"
    ):
        sentences_for(["wrist"], None, "templates:holography")


# -- a user's file


@pytest.mark.parametrize("wrap", [False, True])
def test_a_users_file(wrap: bool, tmp_path: Path) -> None:
    table = {"Cyst": ["round.", "dark."], "left_kidney": ["whole.", "even."], "not asked for": ["x", "y"]}
    path = write(tmp_path / "mine.json", {"modality": "CT", "classes": table} if wrap else table)
    found = sentences_for(["left kidney", "cyst"], "ctkidney", path)
    assert found.by_class == (("whole.", "even."), ("round.", "dark."))
    assert found.source == "file: mine.json"
    assert found.notes == ("mine.json: not of this task, and not used: 1 of its 3 classes ('not asked for').",)
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
    assert found.notes == (
        "mine.json: classes have different numbers of sentences; only the first 2 of each are used, as many as 'b' has; "
        "'biomedcoop prompts check mine.json' shows all.",
    )


def test_what_is_wrong_with_a_users_file_is_said_a_line_for_each_kind(tmp_path: Path) -> None:
    twice = "A dark round spot with a thin bright wall that goes on and on and on around all of the lesion."
    path = write(
        tmp_path / "my words.json", {"a": [twice, twice, "x"], "b": ["y", twice.upper(), "X"], "c": ["z", "z", "v"]}
    )
    repeated, shared = sentences_for(["a", "b", "c"], None, path).notes
    check = "; 'biomedcoop prompts check my words.json' shows all."
    assert (
        repeated
        == f"my words.json: 2 of 9 sentences repeated within a class (a: '{twice[:75]} …' is there twice){check}"
    )
    assert shared.startswith("my words.json: 2 of 9 sentences shared by two classes (b: 'A DARK ROUND SPOT")
    assert shared.endswith(f"is also a sentence of 'a'){check}")
    assert str(tmp_path) not in repeated + shared  # they are kept in the model, which holds no path


# -- class names that differ in a sign, or in what no one sees

SIGNS = {
    "HER2": ["Strong {}."],
    "HER2-": ["No {}."],
    "1": ["One."],
    "-1": ["Minus one."],
    "ER+/PR-": ["Mixed {}."],
    "ER-/PR+": ["Turned {}."],
}


@pytest.mark.parametrize("form", ["t.json", "t.csv", "t.tsv", "t.py", "folder"])
def test_classes_that_differ_in_a_sign(form: str, tmp_path: Path) -> None:
    path = tmp_path / form
    if form == "folder":  # "_" for what a file name cannot have
        path.mkdir()
        for name, (sentence,) in SIGNS.items():
            write(path / f"{name.replace('/', '_')}.txt", sentence)
    elif form == "t.py":
        write(path, f"T = {SIGNS}".replace("'1'", "1").replace("'-1'", "-1"))
    elif form == "t.json":
        write(path, SIGNS)
    else:
        sign = "," if form == "t.csv" else "\t"
        write(
            path, "\n".join(sign.join(row) for row in [("class", "sentence"), *((n, s) for n, (s,) in SIGNS.items())])
        )
    names = list(SIGNS)[::-1]
    found = sentences_for(names, None, path)
    assert found.by_class == tuple((SIGNS[name][0].replace("{}", name),) for name in names)
    assert found.notes == ()


@pytest.mark.parametrize("form", ["t.json", "t.csv", "t.py", "folder"])
@pytest.mark.parametrize("written", ["Na\u0308vus", "N\u00e4\u200bvus", "\ufeffN\u00e4vus", "N\u00e4\u00advus"])
def test_class_names_in_another_unicode_form_or_with_unseen_signs(form: str, written: str, tmp_path: Path) -> None:
    table = {written: ["A dark spot."], "cyst": ["A round one."]}
    path = tmp_path / form
    if form == "folder":
        path.mkdir()
        for name, (sentence,) in table.items():
            write(path / f"{name}.txt", sentence)
    elif form == "t.py":
        write(path, f"T = {table}")
    else:
        write(
            path, table if form == "t.json" else "class,sentence\n" + "".join(f"{n},{s[0]}\n" for n, s in table.items())
        )
    for name in ("N\u00e4vus", "na\u0308vus"):
        assert sentences_for(["cyst", name], None, path).by_class == (("A round one.",), ("A dark spot.",))


def test_a_source_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"prompts {tmp_path}/none.json: cannot be read"):
        sentences_for(["cyst"], None, tmp_path / "none.json")
    with pytest.raises(UserError, match="prompts libary: cannot be read"):  # a slip of the pen names no file
        sentences_for(["cyst"], None, "libary")


def test_only_sentences_that_are_used_are_counted_as_cut(tiny: Backbone, tmp_path: Path) -> None:
    words = tmp_path / "words.json"
    texts = {"cyst": ["Dark round.", "Smooth edge.", "grey . " * 40], "stone": ["Bright.", "With a shadow.", "Small."]}
    words.write_text(json.dumps(texts))
    chosen = sentences_for(list(texts), None, str(words))
    assert length_notes(list(texts), chosen, tiny, used=2) == []
    (note,) = length_notes(list(texts), chosen, tiny, used=3)
    assert note.startswith(
        "1 of the 6 sentences have more tokens than the 64 that model reads and are cut (cyst: 'grey"
    )
