"""Class names: one spelling to say, one comparison, and words for what makes two of them the same."""

from __future__ import annotations

import unicodedata

import pytest

from biomedcoop.data.catalogue import entries
from biomedcoop.data.names import check_class_names, clean_class_name, difference, fold, is_text
from biomedcoop.errors import UserError

NFC, NFD = (unicodedata.normalize(form, "bénin") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    "other",
    [
        NFD,
        "be\u200b\u0301nin",  # the accent composes once nothing stands between
        f"\ufeff{NFC}",
        f"{NFC}\u200b",
        "bé\u00adnin",
        "\u2066bénin\u2069",
        "bé\u0000nin\u0007",
        "bénin\ufe0f",
        "bénin\U000e0100",
        f" {NFC}\u00a0",
        "_bénin_",
    ],
)
def test_what_nobody_sees_is_no_part_of_a_name(other: str) -> None:
    assert clean_class_name(other) == NFC
    assert fold(other) == fold(NFC)


def test_a_name_is_said_with_single_blanks() -> None:
    assert clean_class_name("glioma_tumor") == "glioma tumor"
    assert clean_class_name("a \t\n b\x1fc") == "a b c"
    assert clean_class_name("\u200b_\u2060") == ""


def test_signs_that_belong_to_a_spelling_stay() -> None:
    assert clean_class_name("می\u200cخواهم") == "می\u200cخواهم"
    assert fold("می\u200cخواهم") == fold("میخواهم")
    assert clean_class_name("\u0600\u0661") == "\u0600\u0661"  # the Arabic number sign is seen


@pytest.mark.parametrize(
    ("one", "other"),
    [("Cyst", "cyst"), ("T-cell", "t cell"), ("a_b", "A-B"), ("T\u2011cell", "T-cell"), ("ﬁbroma", "fibroma")],
)
def test_spellings_of_one_class(one: str, other: str) -> None:
    assert fold(one) == fold(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("HER2", "HER2-"), ("HER2-", "HER2+"), ("1", "-1"), ("CD4+ CD8-", "CD4+ CD8+"), ("cyst", "cysts")],
)
def test_names_that_are_two(one: str, other: str) -> None:
    assert fold(one) != fold(other)


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (NFC, NFD, r"they differ only in their Unicode form, in ASCII 'b\xe9nin' and 'be\u0301nin'"),
        (
            "benign",
            "be\u00adnign",
            r"they differ only in blanks or invisible characters, in ASCII 'benign' and 'be\xadnign'",
        ),
        ("a_b", "a b", "they differ only in blanks or invisible characters"),
        ("Cyst", "cyst", "they differ only in case"),
        ("T-cell", "t cell", "they differ only in case, hyphens, blanks or the form of a character"),
        ("a", "a", "they are spelled alike"),
    ],
)
def test_what_makes_two_names_one_is_said(one: str, other: str, words: str) -> None:
    assert difference(one, other) == words


def test_names_that_no_file_can_hold() -> None:
    assert is_text("bénin 🩻")
    assert not is_text("b\udce9nin")


def test_no_benchmark_has_two_classes_of_one_name() -> None:
    for entry in entries():
        assert len(set(map(fold, entry.class_names))) == len(entry.class_names)
        assert tuple(map(clean_class_name, entry.class_names)) == entry.class_names


def test_letters_of_two_alphabets_that_look_alike_are_refused() -> None:
    with pytest.raises(UserError, match="they differ only in letters of two alphabets that look alike"):
        check_class_names(["abdomen", "\u0430bdomen"], "data")
    check_class_names(["\u0430", "\u0431"], "data")
