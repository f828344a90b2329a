"""What is wrong with a sentence, judged against those before it."""

from __future__ import annotations

import pytest

from biomedcoop.prompts import check_sentences
from biomedcoop.prompts.checks import Collection, too_long, uneven

ROUND = "A round dark spot with a thin bright wall."
OTHER = "Several streaks cross the lower lobe from hilum to rim."
THIRD = "Coarse speckled texture fills the wedge beside the vessel."
PLAIN = "Nothing disturbs the even grey pattern of the whole organ."


def kinds(**by_class: list[str]) -> list[tuple[str, str]]:
    """(class, kind) of each fault; ``_`` in a name stands for a space."""
    faults = check_sentences({name.replace("_", " "): sentences for name, sentences in by_class.items()})
    return [(fault.class_name, fault.kind) for fault in faults]


def test_classes_without_sentences_must_not_be_named_either() -> None:
    by_class = {"cyst": ["This thin dark rim looks unlike a malignant tumor of the kidney."]}
    assert not check_sentences(by_class)
    (fault,) = check_sentences(by_class, ["cyst", "malignant tumor"])
    assert fault.text == "names the class 'malignant tumor'"


def test_clean_sentences() -> None:
    assert check_sentences({"cyst": [ROUND, OTHER], "stone": [THIRD, PLAIN]}) == []
    assert check_sentences({}) == check_sentences({"cyst": []}) == []


@pytest.mark.parametrize(
    ("sentence", "kind"),
    [
        (ROUND, "repeat"),
        (ROUND.upper(), "repeat"),
        ("A round, dark spot - with a thin, bright wall", "repeat"),
        ("  A round dark\nspot with a thin bright wall. ", "repeat"),
        ("A round dark spot with a very thin bright wall.", "near-repeat"),  # of 5 content words 5
        ("The thin wall of the dark round lesion is smooth.", "near-repeat"),  # 4 of 7
        ("A thin bright wall and a pale smooth halo.", None),  # 3 of 8
        ("Dark, round.", "length"),
        ("Grey edge blurred by motion artefact " + "here " * 25, "length"),
    ],
)
def test_beside_one_of_its_class(sentence: str, kind: str | None) -> None:
    assert kinds(cyst=[ROUND, sentence], stone=[PLAIN]) == ([("cyst", kind)] if kind else [])


@pytest.mark.parametrize(("count", "fine"), [(5, False), (6, True), (30, True), (31, False)])
def test_length(count: int, fine: bool) -> None:
    assert (kinds(cyst=[" ".join(f"w{n}" for n in range(count))]) == []) is fine


@pytest.mark.parametrize("sign", ["\x1b", "\u202e"])
def test_signs_that_no_one_sees(sign: str) -> None:
    (fault,) = Collection(["cyst", "stone"]).faults("cyst", f"A round dark{sign} spot with a thin wall.")
    assert (fault.kind, fault.serious) == ("characters", False)


def test_a_sentence_of_two_classes() -> None:
    (fault,) = check_sentences({"cyst": [ROUND], "stone": [PLAIN, ROUND.lower()]})
    assert (fault.class_name, fault.kind, fault.sentence) == ("stone", "shared", ROUND.lower())
    assert fault.text == "is also a sentence of 'cyst'"
    # what is nearly the same in two classes may tell them apart by that one word
    assert kinds(cyst=[ROUND], stone=[ROUND.replace("dark", "white")]) == []


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("The HER2 membrane stains.", "The HER2- membrane stains.", False),
        ("The HER2+ membrane stains.", "The HER2\u207b membrane stains.", False),
        ("The HER2\u2212 membrane stains.", "The her2- membrane, stains", True),
        ("Receptors ER+/PR- stain.", "Receptors ER-/PR+ stain.", False),
        ("Grade 1 here.", "Grade -1 here.", False),
        ("A thin-walled cyst.", "A thin - walled cyst", True),
        ("A na\u00efve cyst.", "A nai\u0308ve c\u00adyst.", True),
    ],
)
def test_a_sign_that_belongs_to_a_word_makes_another_sentence(a: str, b: str, same: bool) -> None:
    faults = [fault.kind for fault in check_sentences({"a": [a], "b": [b]}, serious_only=True)]
    assert faults == (["shared"] if same else [])


def test_a_third_with_the_same_opening() -> None:
    starts = [f"On this CT slice {end}" for end in ("a wall shines.", "streaks cross fat.", "nothing lies deep.")]
    assert kinds(cyst=starts) == [("cyst", "opening")]
    assert kinds(cyst=starts[:2], stone=starts[2:]) == []
    assert "begins with 'on this ct slice'" in check_sentences({"cyst": starts})[0].text


@pytest.mark.parametrize(
    ("class_name", "words", "named"),
    [
        ("stone", "cyst", "cyst"),
        ("stone", "CYST,", "cyst"),
        ("stone", "cysts", "cyst"),
        ("stone", "(cyst)", "cyst"),
        ("stone", "cyst's", "cyst"),
        ("stone", "cystic", None),
        ("stone", "stone", None),
        ("cyst", "stones", "stone"),
        ("stone", "benign-tumor", "benign tumor"),
        ("stone", "benign\ttumors", "benign tumor"),
        ("stone", "benign, round tumor", "tumor"),
        # of nested names the longest counts
        ("benign tumor", "benign tumor", None),
        ("benign tumor", "tumor", "tumor"),
        ("benign tumor", "benign", None),
        ("tumor", "benign tumor", "benign tumor"),
        ("tumor", "tumor", None),
        ("benign tumor", "benign tumor beside another tumor", "tumor"),
        ("tumor", "tumor in situ", "tumor in situ"),
        ("tumor in situ", "tumor in situ", None),
        ("stone", "left kidney", "left_kidney"),
        ("left_kidney", "left kidney", None),
        # the same text but for a sign: no one can tell which is named
        ("HER2+", "HER2", None),
        ("HER2-", "HER2", None),
        ("stone", "HER2", "HER2+"),
    ],
)
def test_names_of_other_classes(class_name: str, words: str, named: str | None) -> None:
    table: dict[str, list[str]] = {
        name: []
        for name in ("cyst", "stone", "tumor", "benign tumor", "tumor in situ", "left_kidney", "HER2+", "HER2-", "(?)")
    }
    table[class_name] = [f"Bright rim around the {words} within grey tissue."]
    assert [fault.text for fault in check_sentences(table)] == ([f"names the class '{named}'"] if named else [])


def test_what_is_wrong_whatever_the_words_mean() -> None:
    faults = check_sentences(
        {"cyst": [ROUND, ROUND, "Too short."], "stone": [ROUND, "A grey cyst hides behind the bright rim."]}
    )
    assert [(fault.kind, fault.serious) for fault in faults] == [
        ("repeat", True),
        ("length", False),
        ("shared", True),
        ("other class", False),
    ]
    serious = check_sentences({"cyst": [ROUND, ROUND, "Too short."], "stone": [ROUND]}, serious_only=True)
    assert [(fault.kind, fault.text) for fault in serious] == [
        ("repeat", "is there twice"),
        ("shared", "is also a sentence of 'cyst'"),
    ]


def test_classes_with_different_numbers_of_sentences() -> None:
    assert uneven({}) is uneven({"a": []}) is uneven({"a": ["x"], "b": ["y"]}) is None
    line = uneven({"a": ["1", "2", "3"], "b": ["4", "5"], "c": ["6", "7"]})
    assert line is not None
    assert line.endswith("only the first 2 of each are used, as many as 'b' has")


def test_sentences_that_are_too_long() -> None:
    by_class = {"a": ["x", "y"], "b": ["z"]}
    assert too_long(by_class, {"a": [7, 8], "b": [9]}, 7) == [("a", "y", 8), ("b", "z", 9)]
    assert too_long({}, {}, 7) == []
