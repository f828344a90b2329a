"""The shipped sentences hold to their own rules, and say what their images show."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest

from biomedcoop.data import catalogue
from biomedcoop.prompts import check_sentences
from biomedcoop.prompts.library import holders, is_of, shows

PROMPTS = Path(str(resources.files("biomedcoop.prompts")))
FILES = sorted(path.stem for path in (PROMPTS / "library").glob("*.json"))
TEMPLATES = json.loads((PROMPTS / "templates.json").read_text(encoding="utf-8"))


def read(name: str) -> dict:
    return json.loads((PROMPTS / "library" / f"{name}.json").read_text(encoding="utf-8"))


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


# -- what their images show


@pytest.mark.parametrize("name", FILES)
def test_a_file_describes_images_of_its_own_kind(name: str) -> None:
    content = read(name)
    assert shows(name, None, content["modality"], content["organ"]) is True
    assert shows(name, name, None, None) is True
    assert shows(name, name, "holography", None) is False  # what is stated counts for more than a name
    assert shows(name, None, None, None) is None
    assert shows(name, None, content["modality"], None) is None
    assert holders(list(content["classes"])) == [name]


def test_a_dataset_is_known_by_every_name_of_the_catalogue() -> None:
    for entry in catalogue.entries():
        for dataset in (*entry.all_names, entry.folder.upper()):
            assert [name for name in FILES if is_of(name, dataset)] == [name for name in FILES if name == entry.name]
    assert not is_of("busi", None)
    assert not is_of("busi", "scans")
