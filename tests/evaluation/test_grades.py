"""Which class names are grades, and in what order."""

from __future__ import annotations

import pytest

from biomedcoop.evaluation.grades import grade_notes, grade_order

GRADES = [  # each in ascending order
    ["0", "1", "2", "3", "4"],
    ["1", "2", "3"],
    ["KL 0", "KL 1", "KL 2", "KL 3", "KL 4"],
    ["KL0", "kl_1", "KL-2"],
    ["grade 0", "grade 1", "Grade 2"],
    ["normal tissue", "grade 1 tumor", "grade 2 tumor", "grade 3 tumor"],
    ["stage I", "stage II", "stage III", "stage IV"],
    ["stage IIIa melanoma", "stage IIIb melanoma", "stage IV melanoma"],
    ["BI-RADS 2", "BI-RADS 3", "BI-RADS 4a", "BI-RADS 4b", "BI-RADS 5"],
    ["score 0", "score 1+", "score 2+"],
    ["G1", "G2", "G3"],
    ["no DR", "mild DR", "moderate DR", "severe DR", "proliferative DR"],
    ["No_DR", "Mild", "Moderate", "Severe"],
    ["normal retina", "mild NPDR", "moderate NPDR", "severe NPDR", "PDR"],
    ["mild non-proliferative retinopathy", "severe non-proliferative retinopathy", "proliferative retinopathy"],
    ["healthy knee", "doubtful osteoarthritis", "minimal osteoarthritis", "moderate osteoarthritis"],
    ["0Normal", "1Doubtful", "2Mild", "3Moderate", "4Severe"],
    ["NonDemented", "VeryMildDemented", "MildDemented", "ModerateDemented"],
    ["normal brain", "low-grade glioma", "high-grade glioma"],
    ["well differentiated", "moderately differentiated", "poorly differentiated"],
]

NO_GRADES = [
    ["class 0", "class 1", "class 2"],
    ["type 1", "type 2", "type 3"],
    ["0", "1"],
    ["grade 1", "grade 2"],
    ["0", "2", "7"],
    ["grade 1 glioma", "grade 2 meningioma", "grade 3 glioma"],
    ["grade 1", "Grade 01", "grade 2"],
    ["benign", "malignant", "normal"],
    ["normal", "mild pneumonia", "severe edema"],
    ["normal", "mild acne", "slight acne"],
    ["normal", "healthy", "grade 1", "grade 2"],
    ["normal lungs", "pneumonia lungs", "covid lungs"],
    ["no tumor", "glioma", "meningioma", "pituitary"],
    ["T1", "T2", "FLAIR"],
]


@pytest.mark.parametrize("names", GRADES, ids=lambda names: names[0])
def test_grades_are_found_in_any_order_of_the_labels(names: list[str]) -> None:
    n = len(names)
    assert grade_order(names) == tuple(range(n))
    assert grade_order(names[::-1]) == tuple(range(n))[::-1]
    assert grade_order([*names[1:], names[0]]) == (n - 1, *range(n - 1))


@pytest.mark.parametrize("names", NO_GRADES, ids=lambda names: ", ".join(names))
def test_other_classes_are_no_grades(names: list[str]) -> None:
    assert grade_order(names) is None


def test_the_order_is_said() -> None:
    (note,) = grade_notes(["KL 0", "KL 1", "KL 2"])
    assert note.startswith("The classes are read as grades in this order: KL 0 < KL 1 < KL 2.")
    assert list(grade_notes(())) == []
