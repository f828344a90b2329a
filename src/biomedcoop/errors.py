"""Messages to the user: the exceptions of the package, and the notes issued before long work."""

from __future__ import annotations

import difflib
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from numbers import Integral
from unicodedata import category


class Note(UserWarning):
    """A warning about the data or the results: how data were read, an assumption, or a reason for too good results.

    The command line prints each note as one line on stderr. In Python, the ``warnings`` module can filter notes.
    """


_BETWEEN = ("biomedcoop", "contextlib", "joblib", "matplotlib", "sklearn")


def notify(notes: Iterable[str], kind: type[Note] = Note) -> None:
    """Issue each note as a warning that points to the user's line, past this package and what calls it back."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        level, frame = level + 1, frame.f_back
    for note in notes:
        warnings.warn(spelled(note), kind, stacklevel=level)


_COMMAND_LINE = "_BIOMEDCOOP_COMMAND_LINE"
"""Set in the environment while a command runs, so that its worker processes spell options as it does."""

RENAMED = {"plugin": "plugins", "set": "settings"}
"""Options that have another name in Python."""

SWITCHES = ("by-class", "images", "offline", "overwrite", "repeat-shots", "skip-bad")
"""Options that take no value; an option ``--no-images`` is another one switched off."""

OFF = {"public": "private"}
"""Switches that turn a parameter off."""

NOT_IN_PYTHON = ("allow-host", "help", "no-labels", "to", "token-file", "training")
"""Options of commands alone, which keep their spelling."""

_OPTION = re.compile(
    r"(?P<command>'(?:biomedcoop|train|evaluate|ray|backbones) [^']*'|biomedcoop [a-z]+ [a-z]+ --.*)"  # to be typed as it is
    r"|(?<![\w./-])--(?P<dict>set|rename) (?P<quote>'?)(?P<key>[^=';]{1,80}?)=(?P<one>[^\s;)']*[^\s;)',])(?P=quote)"
    r"|(?<![\w./-])--(?P<name>[a-z][a-z-]*)"
    r"(?: (?P<value>'[^']*'|(?<=--seeds )\d+(?:,\d+)*|-?\d[\d.]*|[A-Z][A-Z:]+\b"
    r"|(?:all|middle|cuda|ray|realistic|per-epoch)\b|library:[\w-]+"
    r"|(?<=--modality )[\w-]+|(?<=--organ )[\w-]+))?"
)


@contextmanager
def command_line() -> Iterator[None]:
    """Spell options in errors and notes as on the command line, where the messages are written so."""
    outer = _COMMAND_LINE in os.environ
    os.environ[_COMMAND_LINE] = "1"
    try:
        yield
    finally:
        if not outer:
            del os.environ[_COMMAND_LINE]


def spelled(message: str) -> str:
    """A message with its options as the caller gives them: in Python, ``--shots all`` is ``shots='all'``.

    Example:
        >>> spelled("lower --shots, or pass --repeat-shots or --set lr=0.1")
        "lower shots, or pass repeat_shots=True or settings={'lr': 0.1}"
    """
    message = printable(message)
    return message if _COMMAND_LINE in os.environ else _OPTION.sub(_in_python, message)


def printable(text: str) -> str:
    """A text without control characters: in the name of a file they could write a line of their own, or colour a terminal.

    Example:
        >>> print(printable("scans/a\\nerror: b.png"))
        scans/a\\nerror: b.png
    """
    return "".join(
        sign.encode("unicode_escape").decode() if category(sign) in ("Cc", "Cf", "Cs", "Zl", "Zp") else sign
        for sign in text
    )


def _in_python(found: re.Match[str]) -> str:
    name, value = found["name"], found["value"]
    if found["command"] or name in NOT_IN_PYTHON:
        return found[0]
    if found["dict"]:
        return f"{RENAMED.get(found['dict'], found['dict'])}={{'{found['key']}': {_literal(found['one'])}}}"
    if name in OFF or name.startswith("no-"):
        return f"{OFF.get(name, name.removeprefix('no-'))}=False"
    word = RENAMED.get(name, name.replace("-", "_"))
    if value is None:
        return f"{word}=True" if name in SWITCHES else word
    if name == "seeds":
        value = f"[{value.replace(',', ', ')}]"
    comma = "," if re.match(r" --[a-z]", found.string[found.end() :]) else ""
    return f"{word}={_literal(value)}{comma}"


def _literal(value: str) -> str:
    """A value as it stands in Python: a number, a placeholder such as FILE or a quoted text stays as it is."""
    return value if re.fullmatch(r"-?\d[\d.e+-]*|\[.*\]|[A-Z:]+|…|'.*'", value) else repr(value)


class UserError(ValueError):
    """An error in the user's input: one line that names the fault, its place and its remedy.

    The command line prints the message without a traceback and exits with status 2.

    Attributes:
        option: name of the option of a request that has a wrong value; None for any other error.
    """

    option: str | None = None

    def __str__(self) -> str:
        return spelled(super().__str__())


def whole_number(name: str, value: object, example: int, least: int = 0, most: int | None = None) -> int:
    """The value of an argument that must be a whole number within limits.

    Raises:
        UserError: it is none; the message names the argument, the value and the limits.
    """
    if isinstance(value, Integral) and not isinstance(value, bool):
        number = int(value)
        if least <= number and (most is None or number <= most):
            return number
    limits = f"of at least {least}" if most is None else f"from {least} to {most}"
    raise UserError(f"{name}={value!r} must be a whole number {limits}, e.g. {name}={example}")


def nearest(name: str, known: Iterable[str]) -> str:
    """End of an error line about an unknown name: the known names that are like it, or all of them."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=2)
    return f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known) or 'none'}"


class ImageError(UserError):
    """An image that cannot be used (unreadable, truncated, too large).

    Attributes:
        where: path of the image, or ``name[index]`` for arrays.
        reason: the fault of the image, without the path.
    """

    def __init__(self, where: object, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = str(where)
        self.reason = reason

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        return type(self), (self.where, self.reason)  # by default a copy is made from the message alone
