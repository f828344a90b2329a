"""Sentences to a JSON file of the same form as the library's files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from biomedcoop.errors import UserError
from biomedcoop.output import check_new_file, write_atomically
from biomedcoop.prompts.matching import match
from biomedcoop.prompts.sources import Table, read_table


def check_output(path: Path, overwrite: bool) -> None:
    """Refuse early a file that cannot be written at the end of long work.

    Raises:
        UserError: the name does not end with .json, the file exists, or its folder does not exist or cannot be written.
    """
    if path.suffix.lower() != ".json":
        raise UserError(f"{path}: sentences are written as JSON; give a name that ends with .json")
    check_new_file(path, overwrite)


def write_table(path: Path, table: Table, about: Mapping[str, Any]) -> None:
    """Write sentences in the form of the library's files.

    Args:
        path: the JSON file.
        table: class name -> sentences.
        about: modality, organ, author and the like; entries that are None are left out.

    Raises:
        UserError: the file system refuses.
    """
    content = {**{key: value for key, value in about.items() if value is not None}, "classes": table}
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")


def import_sentences(
    source: str | Path,
    out: Path,
    *,
    class_names: Sequence[str] | None = None,
    modality: str | None = None,
    organ: str | None = None,
) -> Table:
    """Write the sentences of another file or folder as a JSON file for ``train --prompts``.

    Args:
        source: what :func:`~biomedcoop.prompts.sources.read_table` reads.
        out: the JSON file to write.
        class_names: classes to import; by default all.
        modality, organ: of the images that the sentences describe.

    Returns:
        What was written: class name -> sentences.

    Raises:
        UserError: the source cannot be read or lacks a class, or the file cannot be written.
    """
    table = read_table(source)
    if class_names is not None:
        matched = match(class_names, table)
        if matched.missing:
            missing = ", ".join(f"'{name}'" for name in matched.missing)
            raise UserError(f"{source}: no sentences for {missing}; it has: {', '.join(table)}")
        table = {name: table[key] for name, key in matched.taken.items()}
    write_table(out, table, {"modality": modality, "organ": organ, "author": f"imported from {Path(source).name}"})
    return table
