"""Labels of tables: words, numbers as data frames write them, codes with names; what is no label is said or refused."""

from __future__ import annotations

import pytest

from biomedcoop.data.readers.files.table_labels import Labels, read_labels
from biomedcoop.errors import UserError


def read(*labels: str, names: list[str] | None = None, for_training: bool = True) -> Labels:
    places = [f"line {number}" for number in range(2, len(labels) + 2)]
    return read_labels("t.csv", places, labels, names, for_training)


def refusal(*labels: str, names: list[str] | None = None, for_training: bool = True) -> str:
    with pytest.raises(UserError) as caught:
        read(*labels, names=names, for_training=for_training)
    assert str(caught.value).startswith("t.csv: ")
    assert len(str(caught.value)) < 300
    return str(caught.value)


# -- numbers


@pytest.mark.parametrize(
    "labels", [("1.0", "0.0", "2.0"), ("1", " 0".strip(), "2.00"), ("01", "00", "+2"), ("1e0", "0e0", "2.0e+00")]
)
def test_numbers_keep_their_names_and_order_however_they_are_written(labels: tuple[str, ...]) -> None:
    assert read(*labels, names=["cyst", "normal_tissue", "stone"]) == Labels(
        [1, 0, 2], ("normal tissue", "cyst", "stone")
    )
    unnamed = read(*labels)
    assert (unnamed.numbers, unnamed.class_names) == ([1, 0, 2], ("class 0", "class 1", "class 2"))
    assert "numbers without names" in unnamed.notes[0]


def test_a_name_in_one_row_of_its_label_is_enough() -> None:
    assert read("0", "1", "0", "1", names=["", "b", "a", "NaN"]) == Labels([0, 1, 0, 1], ("a", "b"))
    assert read("0", "1", names=["", "NaN"]).class_names == ("class 0", "class 1")
    assert "line 3 has no class_name for label 1" in refusal("0", "1", "0", names=["a", "", "a"])


def test_named_numbers_may_have_gaps() -> None:
    assert read("7", "3", names=["b", "a"]) == Labels([1, 0], ("a", "b"))


def test_numbers_without_names_have_gaps_only_for_testing() -> None:
    assert read("2", "0", "2.0", for_training=False).class_names == ("class 0", "class 1", "class 2")
    assert read("3", for_training=False).numbers == [3]
    assert "the labels are 0, 2; they must be 0 to 1 without gaps (2 first appears in line 3)" in refusal("0", "2", "0")
    assert "(-1 first appears in line 3)" in refusal("0", "-1", for_training=False)
    assert "(87654321 first appears in line 3)" in refusal("0", "87654321", for_training=False)


# -- words and codes


def test_words_are_classes_in_the_order_of_their_first_row() -> None:
    assert read("b", "a_x", "b", "a x") == Labels([0, 1, 0, 1], ("b", "a x"))


def test_one_visible_name_is_one_class() -> None:
    forms = ("b\u00e9nin", "be\u0301nin", "b\u00e9\u200bnin", "b\u00e9\u00adnin", "\ufeffb\u00e9nin")
    assert read(*forms, "malin") == Labels([0, 0, 0, 0, 0, 1], ("b\u00e9nin", "malin"))


def test_codes_take_their_names_from_class_name() -> None:
    found = read("nv", "mel", "nv", names=["nevus", "melanoma", ""])
    assert (found.numbers, found.class_names) == ([0, 1, 0], ("nevus", "melanoma"))
    assert found.notes == ("class names come from the column class_name; label holds codes (nv for nevus)",)
    assert read("nevus", "b", names=["Nevus", "B"]).notes == ()
    found = read("True", "False", names=["malignant", "benign"])
    assert found.class_names == ("malignant", "benign")


def test_true_and_false_say_little() -> None:
    assert read("True", "False").class_names == ("True", "False")
    assert "add a column class_name, because prompts are made of class names" in read("True", "False").notes[0]


def test_labels_that_contradict_their_names() -> None:
    said = refusal("0", "1.0", "0.0", names=["a", "b", "c"])
    assert "label 0 has two class names, 'a' and 'c' (line 2 and line 4); give it one" in said
    assert "labels mel and nv are both named 'x' (line 2 and line 4)" in refusal(
        "mel", "a", "nv", names=["x", "y", "x"]
    )


# -- what is no label


@pytest.mark.parametrize("cell", ["", "NaN", "NA", "<NA>", "NULL", "#N/A", "\u200b"])
def test_missing_labels(cell: str) -> None:
    said = refusal("a", cell, "b")
    assert "line 3 has an empty label" in said
    assert "fill it in or remove the row" in said
    assert ("another word" in said) == bool(cell)


@pytest.mark.parametrize("cell", ["None", "none", "unknown", "-", "?"])
def test_words_that_may_mean_a_missing_label_are_said(cell: str) -> None:
    found = read("a", cell, cell, cell)
    assert found.class_names == ("a", cell)
    assert f"the label {cell!r} (line 3 and 2 more rows) is read as a class" in found.notes[0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("0", "1", "?", "0"), "line 4 has the label '?', which is not a number, but most labels are; correct it"),
        (("0.0", "1.0", "O"), "line 4 has the label 'O', which is not a number"),
        (("a", "b", "1", "a"), "line 4 has the label '1', which is a number, but most labels are not"),
        (
            ("0", "1", "0.5"),
            "line 4 has the label '0.5', which is not a whole number; correct it, or give every label a name",
        ),
        (("0.1", "0.7"), "line 2 has the label '0.1', which is not a whole number"),
    ],
)
def test_stray_labels(labels: tuple[str, ...], message: str) -> None:
    assert message in refusal(*labels)


def test_a_stray_label_has_the_name_of_another() -> None:
    assert "labels 0 and ? are both named 'a' (line 2 and line 4)" in refusal("0", "1", "?", names=["a", "b", "a"])


def test_grades_are_numbers_and_words() -> None:
    found = read("0", "1+", "2+", "0")
    assert found.class_names == ("0", "1+", "2+")
    assert "the labels are numbers and words (first word in line 3)" in found.notes[0]
    assert read("0.5", "0", names=["very mild", "none"]).class_names == ("very mild", "none")


@pytest.mark.parametrize("cell", ["Mass|Edema", "edema;mass", "Mass, Edema", "['Mass', 'Edema']", "['Mass', 'Hernia']"])
def test_several_labels_that_other_rows_have(cell: str) -> None:
    said = refusal("Mass", cell, "Edema", cell)
    assert f"several labels in one cell, {cell!r} (line 3 and 1 more row); an image has one class" in said


def test_several_labels_of_other_kinds() -> None:
    assert "several labels in one cell, '0|1' (line 4)" in refusal("0", "1", "0|1")
    assert "several labels in one cell, 'a|b'" in refusal("0", "1", "2", names=["a", "b", "a|b"])
    assert "a list in place of a label, \"['a']\"" in refusal("['a']", "['b']")


def test_what_may_be_several_labels_is_said() -> None:
    found = read("Mass", "Mass|Hernia", "Edema;x", "Mass|Hernia")
    assert found.class_names == ("Mass", "Mass|Hernia", "Edema;x")
    (note,) = found.notes
    assert "the label 'Mass|Hernia' (line 3 and 1 more row) may hold several labels, and so may 1 other;" in note
    assert read("carcinoma, ductal", "carcinoma").notes == ()


@pytest.mark.parametrize("cell", ["cyst/stone", "cyst and stone", "cyst + stone", "stone & cyst", "cyst|stone"])
def test_cells_whose_parts_are_other_labels(cell: str) -> None:
    with pytest.raises(UserError, match="several labels in one cell"):
        read_labels("t.csv", ["line 2", "line 3", "line 4"], ["cyst", "stone", cell], None, True)


@pytest.mark.parametrize("cell", ["N/A", "n/a", "#N/A N/A", "1.#QNAN"])
def test_what_data_frames_read_as_missing_is_no_class(cell: str) -> None:
    with pytest.raises(UserError, match="line 4 has an empty label"):
        read_labels("t.csv", ["line 2", "line 3", "line 4"], ["cyst", "stone", cell], None, True)
