"""Lists of class names as a user types them: separated by commas."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Sequence

from biomedcoop.data.names import clean_class_name, fold
from biomedcoop.errors import UserError


def split_names(text: str) -> list[str]:
    """'cyst, "stone, large"' -> ["cyst", "stone, large"]: names separated by commas, one with a comma in double quotes."""
    rows = list(csv.reader([" ".join(text.split())], skipinitialspace=True))
    return [name for word in (rows[0] if rows else []) if (name := clean_class_name(word))]


def join_names(names: Sequence[str]) -> str:
    """What :func:`split_names` takes apart again."""
    quoted = ('"' + name.replace('"', '""') + '"' if "," in name or '"' in name else name for name in names)
    return ", ".join(quoted)


def parse_classes(text: str) -> list[str]:
    """The classes of a task, as ``--classes`` names them: at least two, all different.

    Raises:
        UserError: control characters, fewer than two names, or a name that is there twice.
    """
    if any(unicodedata.category(character) == "Cc" and not character.isspace() for character in text):
        raise UserError(
            f"--classes {text!r}: holds control characters; each class must be a word or a few, on one line"
        )
    names = split_names(text)
    if len(names) < 2:
        raise UserError(
            f"--classes '{text}': name at least two classes, separated by commas, e.g. 'cyst, stone, normal'"
        )
    twice = [name for i, name in enumerate(names) if fold(name) in map(fold, names[:i])]
    if twice:
        raise UserError(f"--classes: '{twice[0]}' is there twice; name each class once")
    return names
