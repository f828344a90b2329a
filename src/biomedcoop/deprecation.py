"""Former names of the public API: they work for at least one more minor version, and a note says what to write instead.

``docs/versions.md`` says which names the promise covers.
"""

from __future__ import annotations

from biomedcoop.errors import Note, notify


class Deprecation(Note, FutureWarning):
    """A note about a former name: Python shows it to everybody, the command line as one line on stderr."""


def deprecated(former: str, present: str, removal: str) -> None:
    """Say that a former name was used.

    Args:
        former, present: the name that was used, and the one to use, as the user writes them.
        removal: the version in which the former name ends, such as "0.4".
    """
    notify([f"{former} is now {present}; the former name ends with version {removal}"], Deprecation)
