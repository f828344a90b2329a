"""A classifier for other classes: its sentences are those of the kind of images it was made for, and what is said of them."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

import biomedcoop as bc
from biomedcoop.backbones.base import Backbone
from biomedcoop.errors import spelled

NEW = ["normal scan", "benign tumor"]


@pytest.fixture(scope="module")
def data(discs: Path) -> bc.Dataset:
    return replace(bc.load_dataset(discs), class_names=("benign tumor", "malignant tumor", "normal scan"))


def turned(clf: bc.Classifier, names: list[str], prompts: str = "auto") -> tuple[bc.Classifier, list[str]]:
    with warnings.catch_warnings(record=True) as issued:
        warnings.simplefilter("always")
        new = clf.for_classes(names, prompts)
    return new, [str(warning.message) for warning in issued]


def test_sentences_for_images_of_the_same_kind(data: bc.Dataset, tiny: Backbone) -> None:
    line = "Sentences: library: busi (ultrasound, breast), 50 for each class."
    known = bc.fit(data, "zero-shot-ensemble", tiny, prompts="templates", modality="ultrasound", organ="breast")
    by_name = bc.fit(replace(data, name="busi"), "zero-shot-ensemble", tiny, prompts="templates")
    for clf in (known, by_name):
        new, said = turned(clf, NEW)
        assert (new.facts["sentences"], said) == ("library: busi (ultrasound, breast)", [line])
    other = bc.fit(data, "zero-shot-ensemble", tiny, prompts="templates", modality="CT", organ="liver")
    new, said = turned(other, NEW)
    assert new.facts["sentences"] == "templates: CT"
    assert "of another kind (CT, liver)" in said[0]


def test_what_was_fitted_for_the_old_classes_is_left_out_and_said(data: bc.Dataset, tiny: Backbone) -> None:
    marks = "marks of images unlike the training images (unlike_training)"
    for options, lost in (({}, marks), ({"alpha": 0.3}, f"{marks} and prediction sets")):
        clf = bc.fit(data, "coop", tiny, shots=8, settings={"epochs": 1}, **options)
        new, said = turned(clf, NEW)
        assert said == [f"Left out with other classes, because they were fitted for those of training: {lost}."]
        assert (new.domain, new.sets) == (None, None)


def test_notes_are_issued_once_and_kept(data: bc.Dataset, tiny: Backbone, tmp_path: Path) -> None:
    clf = bc.fit(data, "zero-shot-ensemble", tiny, prompts="templates")
    new, said = turned(clf, NEW)
    (note,) = said
    assert "add prompts='library:busi'" in note
    assert list(map(spelled, new.facts["notes"])) == [*map(spelled, clf.facts["notes"]), note]
    words = tmp_path / "words.json"
    words.write_text(json.dumps({"na\u0308vus": ["grey . " * 40, "Dark."], "HER2-": ["Pale."]}), encoding="utf-8")
    new, said = turned(clf, ["HER2-", "N\u00e4\u200bvus"], str(words))
    assert new.class_names == ("HER2-", "N\u00e4vus")
    assert [note.split(" (")[0] for note in said] == [
        "words.json: classes have different numbers of sentences; only the first 1 of each are used, as many as 'HER2-' has; "
        "'biomedcoop prompts check words.json' shows all.",
        "1 of the 2 sentences have more tokens than the 64 that model reads and are cut",
    ]
    assert new.facts["notes"][: len(said)] == said


def test_sentences_that_a_method_does_not_read_are_refused(data: bc.Dataset, tiny: Backbone) -> None:
    with pytest.raises(bc.UserError, match="krr reads no sentences about the classes; leave prompts out"):
        bc.fit(data, "krr", tiny, prompts="library:bus")
    clf = bc.fit(data, "coop", tiny, shots=1, settings={"epochs": 1})
    with pytest.raises(bc.UserError, match=r"prompts nofile\.json: cannot be read"):
        clf.for_classes(NEW, "nofile.json")
    assert turned(clf, NEW, "templates")[1] == [
        "coop reads the names of new classes and no sentences about them, so templates changes nothing"
    ]
    assert turned(clf, NEW)[1] == []
