"""Class names given in Python are kept as those of a dataset are."""

from __future__ import annotations

import pytest

import biomedcoop as bc


def test_names_are_cleaned(clf: bc.Classifier) -> None:
    other = clf.for_classes(["be\u0301nin\u200b", " red_stone"])
    assert other.class_names == ("bénin", "red stone")


@pytest.mark.parametrize("other", ["B\u00c9NIN", "be\u0301nin", "bé\u00adnin", "bénin_"])
def test_two_names_of_one_class(clf: bc.Classifier, other: str) -> None:
    with pytest.raises(
        bc.UserError, match="give at least two names that differ in more than case, hyphens or invisible"
    ) as told:
        clf.for_classes(["bénin", other])
    assert ascii(other) in str(told.value)  # what nobody sees is told by its code


def test_a_sign_makes_two_classes(clf: bc.Classifier) -> None:
    assert clf.for_classes(["HER2", "HER2-"]).class_names == ("HER2", "HER2-")
