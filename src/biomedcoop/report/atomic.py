"""Write a file whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from biomedcoop.errors import UserError


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside ``path``, then rename: a killed run or a full disk leaves the old file or none, never half of one.

    Raises:
        UserError: the folder cannot be written to, or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; make room or choose another output folder") from error
