"""Sentences per class: the shipped library, a user's file, or templates. No tensors.

The shipped sentences say what a reader sees in an image of the class; a language model wrote them for this package. One JSON
file per dataset holds its modality, organ and ``classes``: name -> sentences.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from biomedcoop.errors import UserError

TEMPLATES = (
    "a photo of a {}.",
    "a medical image of {}.",
    "an image that shows {}.",
    "a scan with {}.",
    "this picture shows {}.",
    "an example of {} in medical imaging.",
    "a typical case of {}.",
    "a clear view of {}.",
    "findings of {}.",
    "{}.",
)
"""What a dataset without sentences is trained with."""


@dataclass(frozen=True)
class Sentences:
    """Sentences of every class of a task.

    Attributes:
        by_class: C lists in label order, all of the same length P.
        source: where they are from, e.g. "library: busi".
        notes: what a user should be told, a sentence each.
    """

    by_class: tuple[tuple[str, ...], ...]
    source: str
    notes: tuple[str, ...] = ()


def sentences_for(class_names: Sequence[str], dataset: str | None = None, source: str | Path = "auto") -> Sentences:
    """Find sentences for every class.

    Args:
        class_names: C names; case, ``_`` and ``-`` make no difference.
        dataset: catalogue name; its file of the library is looked at first.
        source: "auto" (library, templates where it lacks a class), "library", "templates", or a JSON file
            ``{class name: [sentences]}`` (or one in the library's form).

    Raises:
        UserError: the file cannot be read, or lacks a class.
    """
    if str(source) == "templates":
        return _templates(class_names, ())
    if str(source) not in ("auto", "library"):
        path = Path(source)
        return _matched(class_names, _read(path), f"file: {path.name}", path)
    files = _library()
    for name in sorted(files, key=lambda n: n != dataset):
        if not _lacking(class_names, files[name]):
            return _matched(class_names, files[name], f"library: {name}", name)
    have = {_fold(known) for table in files.values() for known in table}
    lacking = [name for name in class_names if _fold(name) not in have]
    # every class is known, but from different tasks: sentences of one task are written against each other, so none is mixed
    named = ", ".join(f"'{n}'" for n in lacking[:3]) + (" and others" if len(lacking) > 3 else "")
    reason = f"no sentences for {named}" if lacking else "its classes come from different tasks of the library"
    way = 'give your own with --prompts FILE, a JSON object {"class name": ["sentence", ...]}'
    if str(source) == "library":
        raise UserError(f"the prompt library does not cover this task: {reason}; {way}")
    return _templates(class_names, (f"Templates are used in place of sentences: {reason}; {way}.",))


def _templates(class_names: Sequence[str], notes: tuple[str, ...]) -> Sentences:
    return Sentences(tuple(tuple(t.replace("{}", n) for t in TEMPLATES) for n in class_names), "templates", notes)


def _matched(class_names: Sequence[str], table: Mapping[str, Sequence[str]], source: str, where: object) -> Sentences:
    if lacking := _lacking(class_names, table):
        raise UserError(f"{where}: no sentences for class '{lacking[0]}'; it has: {', '.join(list(table)[:8])}")
    folded = {_fold(name): sentences for name, sentences in table.items()}
    found = [tuple(folded[_fold(name)]) for name in class_names]
    shortest = min(map(len, found))
    uneven = f"Classes have different numbers of sentences; the first {shortest} of each are used."
    return Sentences(
        tuple(s[:shortest] for s in found), source, (uneven,) if any(len(s) > shortest for s in found) else ()
    )


def _lacking(class_names: Sequence[str], table: Mapping[str, Sequence[str]]) -> list[str]:
    have = {_fold(name) for name in table}
    return [name for name in class_names if _fold(name) not in have]


def _read(path: Path) -> dict[str, list[str]]:
    try:
        # -sig: some editors put a byte order mark in front
        content: Any = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_distinct)
        json.dumps(content, ensure_ascii=False).encode()  # half a character is JSON but no text
    except OSError as error:
        raise UserError(f"prompts {path}: cannot be read ({error.strerror or error}); give a JSON file") from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"prompts {path}: cannot be used ({error}); want a JSON object of class name to sentences"
        ) from error
    table = content.get("classes", content) if isinstance(content, dict) else None
    if not isinstance(table, dict) or not table:
        raise UserError(f"prompts {path}: want an object of class name to a list of sentences")
    for name, sentences in table.items():
        if (
            not isinstance(sentences, list)
            or not all(isinstance(s, str) and s.strip() for s in sentences)
            or not sentences
        ):
            raise UserError(f"prompts {path}: class '{name}' needs a list of at least one sentence")
    return table


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen = set()
    for name, _ in pairs:
        if _fold(name) in seen:
            raise ValueError(f"'{name}' is there twice")
        seen.add(_fold(name))
    return dict(pairs)


@cache
def _library() -> dict[str, dict[str, list[str]]]:
    folder = resources.files(__package__).joinpath("library")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".json")), key=lambda f: f.name)
    return {f.name.removesuffix(".json"): json.loads(f.read_text(encoding="utf-8"))["classes"] for f in files}


def _fold(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").casefold().split())
