"""The labels of a table: class names, numbers, or codes that a column ``class_name`` explains."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from biomedcoop.data.names import clean_class_name, fold
from biomedcoop.data.readers.rows import names_of_numbers
from biomedcoop.data.tables.missing import is_missing_name, may_be_missing
from biomedcoop.errors import UserError

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d{1,2})?", re.IGNORECASE)
_SEPARATORS = re.compile(r"[|;,/+&]|\band\b")
_LIST = re.compile(r"\[.*\]|\{.*\}|\(\s*['\"].*\)")


@dataclass(frozen=True)
class Labels:
    """Labels in the form of a dataset: a number per image, class names in label order, notes."""

    numbers: list[int]
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def read_labels(
    where: object, places: Sequence[str], labels: Sequence[str], names: Sequence[str] | None, for_training: bool
) -> Labels:
    """Labels from the cells of the columns ``label`` and, where there is one, ``class_name``.

    Labels are class names in the order of their first row, or numbers in their order; a number may be written as a data frame
    writes it (``1.0``, ``1e0``). If there are class names, every label (word or number) is a code for one name.

    Args:
        where: the table, for messages.
        places: place of each row in the file, e.g. "line 4".
        for_training: False allows gaps in numbers without names; the numbers are kept.

    Raises:
        UserError: a label is empty or contradicts its class name, a cell holds several labels, or labels mix words and numbers.
    """
    column = _Column("label", where, places, labels)
    if "" in column.first:
        row = column.cells.index("")
        written = f" ({labels[row]!r} means a missing value; if it is a class, use another word)" if labels[row] else ""
        raise UserError(f"{where}: {places[row]} has an empty label{written}; fill it in or remove the row")
    notes = _check_several(column)
    named = None if names is None else _Column("class_name", where, places, names)
    if all(_whole(label) is not None for label in column.first):
        column = _Column("label", where, places, [str(_whole(label)) for label in column.cells])
    if named is not None and any(named.first):
        return _named(column, named, [*notes, *_check_several(named)])
    if all(_whole(label) is not None for label in column.first):
        return _numbered(column, for_training, notes)
    return _words(column, notes)


class _Column:
    """The cells of a column in the form of class names ("" if empty), and the first place of each distinct cell."""

    def __init__(self, name: str, where: object, places: Sequence[str], cells: Sequence[str]) -> None:
        cleaned = {cell: "" if is_missing_name(cell) else clean_class_name(cell) for cell in set(cells)}
        self.name, self.where, self.places = name, where, places
        self.cells = [cleaned[cell] for cell in cells]
        self.counts = Counter(self.cells)
        self.first: dict[str, str] = {}
        for cell, place in zip(self.cells, places, strict=True):
            self.first.setdefault(cell, place)

    def seen(self, cell: str) -> str:
        """The places of a cell in messages: "line 4", or "line 4 and 7 more rows"."""
        more = self.counts[cell] - 1
        return self.first[cell] + (f" and {more} more row{'s' * (more > 1)}" if more else "")


def _whole(label: str) -> int | None:
    """The whole number that a label is, if it is one: ``1``, ``01``, ``1.0``, ``1e0``."""
    if not _NUMBER.fullmatch(label):
        return None
    if label.lstrip("+-").isdecimal():
        return int(label)
    value = float(label)
    return int(value) if value.is_integer() else None


def _check_several(column: _Column) -> list[str]:
    """Notes about cells that may hold several labels.

    Raises:
        UserError: a cell holds a list, or its parts are labels of other rows.
    """
    known = {fold(cell) for cell in column.first if cell}
    doubtful = []
    for cell in column.first:
        listed = bool(_LIST.fullmatch(cell))
        parts = [part.strip(" '\"") for part in _SEPARATORS.split(cell.strip("[]{}()") if listed else cell)]
        if listed or (len(parts) > 1 and all(part and fold(part) in known for part in parts)):
            what = "several labels in one cell" if len(parts) > 1 else "a list in place of a label"
            raise UserError(
                f"{column.where}: {what}, {cell!r} ({column.seen(cell)}); an image has one class: keep one "
                f"{column.name}, or remove the row"
            )
        if len(parts) > 1 and ("|" in cell or ";" in cell):
            doubtful.append(cell)
    if not doubtful:
        return []
    more = len(doubtful) - 1
    others = f", and so may {more} other{'s' * (more > 1)}" if more else ""
    return [
        f"the {column.name} {doubtful[0]!r} ({column.seen(doubtful[0])}) may hold several labels{others}; each such cell is "
        "read as one class"
    ]


def _named(column: _Column, named: _Column, notes: list[str]) -> Labels:
    """Labels that are codes for the class names in ``named``."""
    names: dict[str, tuple[str, str]] = {}  # label -> name and where it was given
    for label, name, place in zip(column.cells, named.cells, column.places, strict=True):
        if name:
            given, first = names.setdefault(label, (name, place))
            if given != name:
                raise UserError(
                    f"{column.where}: label {label} has two class names, {given!r} and {name!r} ({first} and {place}); "
                    "give it one"
                )
    if nameless := next((label for label in column.first if label not in names), None):
        raise UserError(
            f"{column.where}: {column.first[nameless]} has no class_name for label {nameless}, and no other row has one; fill it in"
        )
    codes: dict[str, str] = {}
    for label, (name, place) in names.items():
        other = codes.setdefault(name, label)
        if other != label:
            raise UserError(
                f"{column.where}: labels {other} and {label} are both named {name!r} ({names[other][1]} and {place}); give "
                "every label a name of its own"
            )
    if all(_whole(label) is not None for label in column.first):
        labels = sorted(column.first, key=int)  # gaps do not matter, because every label has a name
    else:
        labels = list(column.first)
        code = next((label for label in labels if fold(label) != fold(names[label][0])), None)
        if code:
            notes.append(
                f"class names come from the column class_name; label holds codes ({code} for {names[code][0]})"
            )
    number = {label: index for index, label in enumerate(labels)}
    class_names = tuple(names[label][0] for label in labels)
    return Labels([number[label] for label in column.cells], class_names, (*notes, *_notes_on_doubtful_names(named)))


def _numbered(column: _Column, for_training: bool, notes: list[str]) -> Labels:
    """Labels that are whole numbers without names."""
    numbers = [int(label) for label in column.cells]
    try:
        names = names_of_numbers(numbers, column.where, for_training)
    except UserError as error:
        found = sorted(set(numbers))
        odd = next((number for index, number in enumerate(found) if for_training and number != index), found[-1])
        odd = min(odd, found[0]) if found[0] < 0 else odd
        place = column.first[str(odd)]
        raise UserError(
            f"{error} ({odd} first appears in {place}); or name every label in a column class_name"
        ) from error
    return Labels(numbers, names, (*notes, _without_names("numbers")))


def _words(column: _Column, notes: list[str]) -> Labels:
    """Labels that are class names, in the order of their first row."""
    notes += _numbers_among(column)
    notes += _notes_on_doubtful_names(column)
    if {label.casefold() for label in column.first} <= {"true", "false"}:
        notes.append(_without_names("true and false"))
    number = {label: index for index, label in enumerate(column.first)}
    return Labels([number[label] for label in column.cells], tuple(column.first), tuple(notes))


def _without_names(what: str) -> str:
    return f"the labels are {what} without names; add a column class_name, because prompts are made of class names"


def _numbers_among(column: _Column) -> list[str]:
    """A note about numbers among words with a digit, such as grades ("0", "1+", "4a").

    Raises:
        UserError: a word without a digit stands among numbers, or a number is not whole.
    """
    numbers = [label for label in column.first if _NUMBER.fullmatch(label)]
    if not numbers:
        return []
    remedy = "correct it, or give every label a name in a column class_name"
    for label in numbers:
        if _whole(label) is None:
            raise UserError(
                f"{column.where}: {column.first[label]} has the label {label!r}, which is not a whole number; {remedy}"
            )
    words = [label for label in column.first if not any(sign.isdigit() for sign in label)]
    if not words:
        first = column.first[next(label for label in column.first if label not in numbers)]
        return [f"the labels are numbers and words (first word in {first}), so each is read as a class name"]
    n_numbers, n_words = (sum(column.counts[label] for label in labels) for labels in (numbers, words))
    stray, rule = (
        (words[0], "not a number, but most labels are")
        if n_words <= n_numbers
        else (numbers[0], "a number, but most labels are not")
    )
    raise UserError(f"{column.where}: {column.first[stray]} has the label {stray!r}, which is {rule}; {remedy}")


def _notes_on_doubtful_names(column: _Column) -> list[str]:
    """Notes about class names that may mean a missing value."""
    return [
        f"the {column.name} {cell!r} ({column.seen(cell)}) is read as a class; remove such rows "
        "if it means that the label is unknown"
        for cell in column.first
        if may_be_missing(cell)
    ]
