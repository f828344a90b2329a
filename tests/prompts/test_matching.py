"""Which class takes whose sentences: by the same name, by that of a file, by a part of a name where one is asked for."""

from __future__ import annotations

import pytest

from biomedcoop.errors import UserError
from biomedcoop.prompts.matching import candidates, match, nearly_all

TABLE = {"benign tumor": ["A {}."], "malignant tumor": ["B."], "normal scan": ["C."]}


def test_the_same_name() -> None:
    matched = match(["Normal_Scan", "wrist", "BENIGN-TUMOR"], TABLE)
    assert matched.by_class == {"Normal_Scan": ["C."], "BENIGN-TUMOR": ["A BENIGN-TUMOR."]}
    assert matched.taken == {"Normal_Scan": "normal scan", "BENIGN-TUMOR": "benign tumor"}
    assert (matched.nearly, matched.missing, matched.unused) == ({}, ["wrist"], ["malignant tumor"])


def test_a_part_of_a_name_counts_only_where_it_is_asked_for() -> None:
    assert match(["benign", "normal"], TABLE).missing == ["benign", "normal"]
    matched = match(["benign", "normal scan"], TABLE, near="it")
    assert matched.by_class == {"benign": ["A benign tumor."], "normal scan": ["C."]}  # in the words it was written for
    assert matched.nearly == {"benign": "benign tumor"}
    assert match(["benig", "tumor scan"], TABLE, near="it").missing == ["benig", "tumor scan"]
    with pytest.raises(
        UserError, match=r"^it: 'tumor' may be 'benign tumor' or 'malignant tumor'; rename the class to the one"
    ):
        match(["tumor", "normal"], TABLE, near="it")
    with pytest.raises(
        UserError, match=r"^it: 'benign tumor' and 'benign' would both take the sentences of 'benign tumor'"
    ):
        match(["benign", "benign tumor"], TABLE, near="it")


def test_a_sign_is_no_part_of_a_name() -> None:
    table = {"HER2-": ["No."], "tumor HER2": ["Yes."]}
    assert candidates("HER2", table) == ["tumor HER2"]
    assert candidates("her2-", table) == ["HER2-"]
    assert candidates("HER2+", table) == []


def test_a_sign_that_no_file_name_can_have() -> None:
    table = {"ER+ PR-": ["a"], "why": ["b"]}
    assert match(["ER+/PR-", "why?"], table).by_class == {"ER+/PR-": ["a"], "why?": ["b"]}
    assert match(["ER+/PR-", "ER+:PR-", "ER+ PR-"], table).missing == [
        "ER+/PR-",
        "ER+:PR-",
    ]  # the plain name comes first


def test_classes_that_are_all_meant_surely() -> None:
    assert nearly_all(["normal", "Malignant"], TABLE) == ["normal scan", "malignant tumor"]
    for names in (["normal", "wrist"], ["normal", "tumor"], ["normal", "scan"]):
        assert nearly_all(names, TABLE) == []
