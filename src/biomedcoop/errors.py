"""The one exception a user is meant to read."""

from __future__ import annotations


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
        """Both parts, so that it comes whole from another process."""
        return type(self), (self.where, self.reason)
