"""Upkeep of the feature store: what it holds, and how to delete it."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import NamedTuple

from biomedcoop.errors import UserError
from biomedcoop.features.shard import KEY_BYTES, SUFFIX, ShardError, open_shard
from biomedcoop.features.store import DESCRIPTION_FILE, shard_names, unreadable
from biomedcoop.output import TEMPORARY_PREFIX

_SPACE_NAME = re.compile(r"[0-9a-f]{16}")


class SpaceSummary(NamedTuple):
    """One space: its description ({} if unreadable), the vectors that this version can read, and the bytes on disk."""

    description: dict[str, str | int]
    vectors: int
    bytes: int


def summary(root: Path) -> list[SpaceSummary]:
    """Content of the store in ``root``, one row per space; [] if there is no store.

    Raises:
        UserError: if the folder cannot be listed.
    """
    rows = []
    for folder in _space_folders(root):
        try:
            held = json.loads((folder / DESCRIPTION_FILE).read_bytes())
        except (OSError, ValueError):
            held = None
        description = held if isinstance(held, dict) else {}
        width = description.get("width", 0)
        keys: set[bytes] = set()
        for name in shard_names(folder):
            with contextlib.suppress(ShardError):
                shard, held_keys = open_shard(folder / name, folder.name, width)
                keys.update(held_keys[i : i + KEY_BYTES] for i in range(0, shard.rows * KEY_BYTES, KEY_BYTES))
        size = 0
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # a temporary file that got its name meanwhile
                size += path.stat().st_size
        rows.append(SpaceSummary(description, len(keys), size))
    return rows


def clear(root: Path) -> int:
    """Delete all spaces in ``root``, and nothing that the store did not write.

    Returns:
        The bytes set free.

    Raises:
        UserError: if the folder cannot be listed, or a file cannot be deleted.
    """
    freed = 0
    for folder in _space_folders(root):
        ours = [*folder.glob(f"*{SUFFIX}"), *folder.glob(f"{TEMPORARY_PREFIX}*"), folder / DESCRIPTION_FILE]
        for path in ours:
            try:
                size = path.stat().st_size
                path.unlink()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise UserError(
                    f"cannot delete {path}: {error.strerror or error}; delete the folder by hand"
                ) from error
            freed += size
        with contextlib.suppress(OSError):  # not empty: someone else's file, or a process that is adding a shard
            folder.rmdir()
    return freed


def _space_folders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if _SPACE_NAME.fullmatch(path.name) and path.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unreadable(root, error) from error
