"""The classes of a task as the command line names them."""

from __future__ import annotations

import unicodedata

from biomedcoop.data.name_lists import split_names
from biomedcoop.data.names import fold
from biomedcoop.errors import UserError


def parse_classes(text: str) -> list[str]:
    """The classes of a task, as ``--classes`` names them: at least two, all different.

    Raises:
        UserError: control characters, fewer than two names, or a name that is there twice.
    """
    if any(unicodedata.category(character) == "Cc" and not character.isspace() for character in text):
        raise UserError(
            f"--classes {text!r}: holds control characters; each class must be one or more words, on one line"
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
