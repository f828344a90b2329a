"""Which sentences of a table belong to which class of a task."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from biomedcoop.data.names import fold
from biomedcoop.errors import UserError

_NOT_IN_FILE_NAMES = r'[/\\:*?"<>|]'


@dataclass(frozen=True)
class Matched:
    """What a table of sentences holds for the classes of a task.

    Attributes:
        by_class: class of the task -> its sentences, ``{}`` filled in; classes without sentences are not there.
        taken: class of the task -> class of the table whose sentences it takes.
        nearly: those of ``taken`` whose names are not the same.
        missing: classes of the task without sentences.
        unused: classes of the table that the task lacks.
    """

    by_class: dict[str, list[str]]
    taken: dict[str, str]
    nearly: dict[str, str]
    missing: list[str]
    unused: list[str]


def match(class_names: Sequence[str], table: Mapping[str, Sequence[str]], near: str | None = None) -> Matched:
    """Find the sentences of every class of a task by its name.

    Case, Unicode forms, ``_`` and a hyphen between words make no difference, and ``_`` may stand for a character that file names
    cannot have ("ER+_PR-.txt").

    Args:
        near: name of the table if a class may also take the sentences of the one class whose name holds all its words
            ("benign" those of "benign tumor"); the name stands in the errors.

    Raises:
        UserError: a near name fits several classes, or two classes fit one.
    """
    folded = {fold(key): key for key in table}
    taken = {name: folded[fold(name)] for name in class_names if fold(name) in folded}
    for name in class_names:
        as_file = folded.get(fold(re.sub(_NOT_IN_FILE_NAMES, "_", name)))
        if name not in taken and as_file is not None and as_file not in taken.values():
            taken[name] = as_file
    nearly = {} if near is None else _nearly([name for name in class_names if name not in taken], taken, table, near)
    taken = {name: (taken | nearly)[name] for name in class_names if name in taken or name in nearly}
    by_class = {
        # a sentence that was written for "benign tumor" says so, and not "benign"
        name: [text.replace("{}", nearly.get(name, name)) for text in table[key]]
        for name, key in taken.items()
    }
    missing = [name for name in class_names if name not in taken]
    return Matched(by_class, taken, nearly, missing, [key for key in table if key not in taken.values()])


def _nearly(
    class_names: Sequence[str], taken: dict[str, str], table: Mapping[str, Sequence[str]], where: str
) -> dict[str, str]:
    nearly: dict[str, str] = {}
    for name in class_names:
        found = candidates(name, table)
        if len(found) > 1:
            may_be = " or ".join(f"'{key}'" for key in found)
            raise UserError(f"{where}: '{name}' may be {may_be}; give the class the name of the one that is meant")
        if found:
            takers = [other for other, key in (taken | nearly).items() if key == found[0]]
            if takers:
                raise UserError(
                    f"{where}: '{takers[0]}' and '{name}' would both take the sentences of '{found[0]}'; rename the class that is "
                    "not meant"
                )
            nearly[name] = found[0]
    return nearly


def candidates(class_name: str, table: Mapping[str, Sequence[str]]) -> list[str]:
    """The class of a table with this name or, without one, those whose names hold all words of it and more."""
    name = fold(class_name)
    same = [key for key in table if fold(key) == name]
    return same or [key for key in table if set(name.split()) < set(fold(key).split())]


def nearly_all(class_names: Sequence[str], table: Mapping[str, Sequence[str]]) -> list[str]:
    """The class of a table that each class of a task surely means, by its name or by all its words; nothing if one means none."""
    found = [candidates(name, table) for name in class_names]
    keys = [only[0] for only in found if len(only) == 1]
    return keys if len(keys) == len(class_names) == len(set(keys)) else []
