"""What a user is meant to read: the one exception, and notes that come before long work."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable


class Note(UserWarning):
    """Something a user should know before the numbers: how data were read, what was assumed, what flatters a result.

    The command line prints it as one line on stderr; in Python it is a warning, which ``warnings`` can filter.
    """


def notify(notes: Iterable[str]) -> None:
    """Issue each note as a warning; where it comes from is the line outside this package that asked for the work."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "biomedcoop":
        level, frame = level + 1, frame.f_back
    for note in notes:
        warnings.warn(note, Note, stacklevel=level)


class UserError(ValueError):
    """A mistake in what the user gave: one line that says what is wrong, where, and how to mend it.

    The command line prints the message without a traceback and exits with status 2.
    """


class ImageError(UserError):
    """One image that cannot be used (unreadable, truncated, too large).

    Attributes:
        where: the path (or ``name[index]`` for arrays) of the image.
        reason: what is wrong with it, without the path.
    """

    def __init__(self, where: object, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = str(where)
        self.reason = reason

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        return type(self), (self.where, self.reason)  # by default a copy is made from the message alone
