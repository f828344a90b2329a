"""Where the files of a folder came from: a small file beside them holds what the hub said when they were downloaded."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from biomedcoop.errors import UserError
from biomedcoop.hub.files import HubFile
from biomedcoop.output import replace_file

SOURCE = "source.json"
"""Name of the file beside the weights."""


def read_source(folder: Path) -> dict[str, HubFile]:
    """The hub's word on each file of a folder, by the file's name there; empty for a folder that was filled by hand.

    A file written by :func:`biomedcoop.backbones.convert.convert` is listed too, without a repository.

    Raises:
        UserError: the file cannot be read.
    """
    path = folder / SOURCE
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["files"]
        return {str(name): HubFile(**facts) for name, facts in listed.items()}
    except FileNotFoundError:
        return {}
    except NotADirectoryError as error:
        raise UserError(f"{folder} is a file; remove it, or set BIOMEDCOOP_CACHE to another folder") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: it cannot be read ({error}); remove it, the weights can do without it") from error


def write_source(folder: Path, files: Mapping[str, HubFile]) -> None:
    """Write what the hub said beside the files.

    Raises:
        OSError: as the system reports it.
    """
    facts = {name: dataclasses.asdict(file) for name, file in sorted(files.items())}
    replace_file(folder / SOURCE, [json.dumps({"files": facts}, indent=1).encode()])
