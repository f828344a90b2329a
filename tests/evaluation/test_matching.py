"""Which of a classifier's classes the labels of test data mean."""

from __future__ import annotations

import numpy as np
import pytest

from biomedcoop import Dataset, UserError
from biomedcoop.evaluation.matching import labels_of

WORDS = ("benign tumor", "malignant tumor", "normal")
NUMBERS = ("class 0", "class 1", "class 2")


def dataset(class_names, labels) -> Dataset:
    n = len(labels)
    return Dataset("ext", class_names, np.zeros((n, 8, 8), np.uint8), [f"{i}" for i in range(n)], labels, ["test"] * n)


def test_names_are_matched_whatever_their_order_and_spelling():
    data = dataset(["Normal", "malignant-tumor", "BENIGN TUMOR"], [0, 1, 2, 0])
    labels, notes = labels_of(data, WORDS)
    assert labels.tolist() == [2, 1, 0, 2]
    assert notes == []


def test_an_exact_name_comes_before_one_that_is_spelt_otherwise():
    labels, _ = labels_of(dataset(["HER-2", "her 2 low"], [0, 1]), ("HER 2 low", "HER-2"))
    assert labels.tolist() == [1, 0]
    labels, _ = labels_of(dataset(["HER2-", "HER2"], [0, 1]), ("HER2", "HER2-"))
    assert labels.tolist() == [1, 0]


def test_only_classes_with_images_need_to_be_known():
    data = dataset(["normal", "polyp", "malignant tumor"], [0, 0, 2])
    assert labels_of(data, WORDS)[0].tolist() == [2, 2, 1]
    with pytest.raises(UserError, match=r"class 'polyp', the classifier knows: benign tumor, malignant tumor, normal;"):
        labels_of(dataset(["normal", "polyp"], [0, 1]), WORDS)
    assert labels_of(dataset(["normal"], [0, 0]), WORDS)[0].tolist() == [2, 2]


def test_numbers_without_names_mean_the_classes_in_their_order_and_this_is_said():
    labels, (note,) = labels_of(dataset(NUMBERS, [0, 2, 2]), WORDS)  # no image of class 1
    assert labels.tolist() == [0, 2, 2]
    assert note.endswith("were read as classes of the classifier: 0 as 'benign tumor', 2 as 'normal'.")
    with pytest.raises(UserError, match=r"label 3 and no class names, the classifier knows 0, 1, 2"):
        labels_of(dataset((*NUMBERS, "class 3"), [0, 3]), WORDS)


def test_numbers_mean_classes_that_are_called_by_numbers():
    labels, (note,) = labels_of(dataset(("class 0", *(f"class {k}" for k in (1, 2, 3))), [1, 3]), ("1", "2", "3"))
    assert labels.tolist() == [0, 2]
    assert "1 as '1', 3 as '3'" in note
    with pytest.raises(UserError, match="label 0 and no class names, the classifier knows 1, 2, 3"):
        labels_of(dataset(("class 0",), [0]), ("1", "2", "3"))


def test_a_classifier_of_numbers_takes_numbers_and_refuses_words():
    labels, notes = labels_of(dataset(NUMBERS, [0, 2]), ("class 0", "class 1", "class 2", "class 3"))
    assert labels.tolist() == [0, 2]
    assert notes == []
    with pytest.raises(UserError, match=r"class 'normal', the classifier was trained on numbers .* 0 to 2; give these"):
        labels_of(dataset(WORDS, [2]), NUMBERS)


def test_renamed_classes_several_to_one_and_whatever_their_case():
    data = dataset(["Cancer", "in situ", "NORMAL"], [0, 1, 2, 1])
    labels, notes = labels_of(data, WORDS, {"cancer": "Malignant-Tumor", "in situ": "malignant tumor"})
    assert labels.tolist() == [1, 1, 2, 1]
    assert notes == []


def test_labels_without_names_are_renamed_too():
    labels, notes = labels_of(dataset(NUMBERS, [0, 1, 2]), WORDS, {"class 0": "normal", "class 2": "benign tumor"})
    assert labels.tolist() == [2, 1, 0]
    assert "1 as 'malignant tumor'." in notes[0]


@pytest.mark.parametrize(
    ("rename", "words"),
    [
        ({"polip": "normal"}, "rename polip=normal: ext has no class 'polip'; did you mean polyp?"),
        (
            {"polyp": "benign tumour"},
            "the classifier has no class 'benign tumour'; did you mean benign tumor or malignant tumor?",
        ),
        ({"polyp": "normal", "Polyp": "benign tumor"}, "rename gives the class 'polyp' two names; give it one"),
        (["polyp"], "rename must map class names"),
        ({"polyp": 1}, "rename must map class names"),
    ],
)
def test_wrong_names_are_refused(rename, words):
    with pytest.raises(UserError) as caught:
        labels_of(dataset(["normal", "polyp"], [0, 1]), WORDS, rename)
    assert words in str(caught.value)
