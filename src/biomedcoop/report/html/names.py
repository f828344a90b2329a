"""Names of images as a page shows them, without folders of this machine."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath, PureWindowsPath


def shown_names(keys: Sequence[str]) -> tuple[str, ...]:
    """The keys of images, where a path that starts outside the data has its last names only.

    Such a path is absolute or climbs with ``..``. It shows the file's name, and as many folders above as tell it from all others.

    Example:
        >>> from biomedcoop.report.html.names import shown_names
        >>> shown_names(["/home/ann/a/1.png", "/home/ann/b/1.png", "/home/ann/b/2.png", "test/3.png"])
        ('a/1.png', 'b/1.png', '2.png', 'test/3.png')
    """
    ends = [_parts(key) for key in keys]
    shown = ["" if parts else key for key, parts in zip(keys, ends, strict=True)]
    length = 1
    while left := [i for i, name in enumerate(shown) if not name]:
        tails = {i: "/".join(ends[i][-length:]) for i in left}
        found = Counter([*shown, *(tail for i, parts in enumerate(ends) if (tail := "/".join(parts[-length:])))])
        for i, tail in tails.items():
            if found[tail] == 1 or length >= len(ends[i]):
                shown[i] = tail
        length += 1
    return tuple(shown)


def _parts(key: str) -> list[str]:
    """The names in a path that starts outside the data; none for any other key."""
    if PureWindowsPath(key).drive:
        return list(PureWindowsPath(key).parts[1:])
    outside = PurePosixPath(key).is_absolute() or ".." in re.split(r"[\\/]", key) or key.startswith("~")
    return [part for part in re.split(r"[\\/]+", key) if part not in ("", ".", "..")] if outside else []
