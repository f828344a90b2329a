"""Match the classes of a task to the classes of a table of sentences, by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from biomedcoop.data.names import fold
from biomedcoop.errors import UserError

_NOT_IN_FILE_NAMES = r'[/\\:*?"<>|]'


@dataclass(frozen=True)
class Matched:
    """The sentences of a table for the classes of a task.

    Attributes:
        by_class: class of the task -> its sentences, with ``{}`` filled in; without the classes that have none.
        taken: class of the task -> class of the table whose sentences it takes.
        nearly: the part of ``taken`` where the two names differ.
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
        near: name of the table, for messages. With it, a class may also take the sentences of the one class whose name holds
            all its words ("benign" those of "benign tumor").

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
        keys = candidates(name, table)
        if len(keys) > 1:
            may_be = " or ".join(f"'{key}'" for key in keys)
            raise UserError(f"{where}: '{name}' may be {may_be}; rename the class to the one that is meant")
        if keys:
            takers = [other for other, key in (taken | nearly).items() if key == keys[0]]
            if takers:
                raise UserError(
                    f"{where}: '{takers[0]}' and '{name}' would both take the sentences of '{keys[0]}'; rename the class that is "
                    "not meant"
                )
            nearly[name] = keys[0]
    return nearly


def candidates(class_name: str, table: Mapping[str, Sequence[str]]) -> list[str]:
    """The class of a table with this name; if there is none, the classes whose names hold all its words and more."""
    name = fold(class_name)
    same = [key for key in table if fold(key) == name]
    return same or [key for key in table if set(name.split()) < set(fold(key).split())]


def nearly_all(class_names: Sequence[str], table: Mapping[str, Sequence[str]]) -> list[str]:
    """For each class of a task the one class of a table that it can mean; [] if a class has none or several."""
    of_each = [candidates(name, table) for name in class_names]
    keys = [only[0] for only in of_each if len(only) == 1]
    return keys if len(keys) == len(class_names) == len(set(keys)) else []
