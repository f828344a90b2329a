"""What every reader checks: class names, label numbers, and names that files can hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from biomedcoop.data.names import check_class_names
from biomedcoop.data.readers.rows import Row, build_dataset, names_by_label, names_of_numbers
from biomedcoop.errors import UserError


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["Cyst", "cyst"], "'Cyst' and 'cyst' are the same; rename one (they differ only in case)"),
        (["T-cell", "t cell"], "are the same; rename one (they differ only in case, hyphens"),
        (
            ["be\u00adnign", "benign"],
            r"(they differ only in blanks or invisible characters, in ASCII 'be\xadnign' and 'benign')",
        ),
        (["a", "\u200b"], r"a class name is empty ('\u200b' has no visible character)"),
        (["a", ""], "a class name is empty; name every class"),
        (["a", "b\udce4"], r"the class name 'b\udce4' is not UTF-8"),
        (["a"], "one class ('a') found, but a classifier needs at least two"),
    ],
)
def test_class_names_that_cannot_be_used(names: list[str], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        check_class_names(names, "data")


def test_class_names_that_can_be_used() -> None:
    check_class_names(["HER2", "HER2-", "HER2+"], "data")
    check_class_names(["a"], "data", for_training=False)


def test_label_numbers_may_have_gaps_where_nothing_is_trained() -> None:
    assert names_of_numbers([0, 2], "data", for_training=False) == ("class 0", "class 1", "class 2")
    assert names_by_label([(0, "cyst"), (2, "stone")], "data", for_training=False) == ("cyst", "class 1", "stone")
    with pytest.raises(UserError, match="the labels are 0, 2; they must be 0 to 1 without gaps"):
        names_of_numbers([0, 2], "data")


@pytest.mark.parametrize("label", [-1, 20_260_101])
def test_numbers_that_are_no_labels(label: int) -> None:
    with pytest.raises(UserError, match=f"data: {label} is not a label; labels are numbers from 0, one for each class"):
        names_of_numbers([0, label], "data", for_training=False)


def test_a_file_name_that_no_table_can_hold(tmp_path: Path) -> None:
    rows = [Row(key, tmp_path / key, label, "train") for label, key in enumerate(("a.png", "b\udce4.png"))]
    with pytest.raises(
        UserError, match=r"the file name 'b\\udce4.png' is not UTF-8, so no table can hold it; rename the file"
    ):
        build_dataset("d", ("a", "b"), rows, tmp_path, "data")
