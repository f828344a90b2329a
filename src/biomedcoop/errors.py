"""Messages to the user: the exceptions of the package, and the notes issued before long work."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable


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
        warnings.warn(note, kind, stacklevel=level)


class UserError(ValueError):
    """An error in the user's input: one line that names the fault, its place and its remedy.

    The command line prints the message without a traceback and exits with status 2.

    Attributes:
        option: name of the option of a request that has a wrong value; None for any other error.
    """

    option: str | None = None


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
