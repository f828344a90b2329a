"""Results that stay in a folder, so that a command that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from biomedcoop.output import write_atomically


def kept(
    folder: Path | None, name: str, what: Iterable[object], compute: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """What ``compute`` returns, JSON values by name, from ``folder/name.json`` if it is there.

    Args:
        folder: None keeps nothing.
        what: all that the result depends on; a file that was made with other values is written anew.
    """
    if folder is None:
        return compute()
    digest = hashlib.sha256("\n".join(map(str, what)).encode()).hexdigest()
    path = folder / f"{name}.json"
    if path.is_file():
        held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if held["digest"] == digest:
            return held
    result = compute()
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps({"digest": digest, **result}).encode())
    return result
