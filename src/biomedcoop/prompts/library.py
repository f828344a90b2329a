"""Sentences per class: the shipped library, a user's file, or templates. No tensors.

The shipped sentences say what a reader sees in an image of the class; a language model wrote them for this package, and a second
reader went through them. One JSON file per dataset holds its modality, organ and ``classes``: name -> sentences.
"""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from biomedcoop.data.names import fold
from biomedcoop.errors import UserError
from biomedcoop.prompts.sources import join_names, read_table, read_templates, split_name

GENERAL = "general"
"""The set of templates that says nothing of a modality."""


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


def sentences_for(
    class_names: Sequence[str],
    dataset: str | None = None,
    source: str | Path = "auto",
    modality: str | None = None,
    organ: str | None = None,
) -> Sentences:
    """Find sentences for every class. In all of them ``{}`` stands for the class name.

    Args:
        class_names: C names; case, ``_`` and ``-`` make no difference.
        dataset: catalogue name; its file of the library is looked at first.
        source: "auto" (library, templates where it lacks a class), "library", "library:NAME" (that file), "templates" (those of
            the modality), "templates:MODALITY", or a path: what :func:`~biomedcoop.prompts.sources.read_table` reads, or a
            text file of templates.
        modality, organ: of the dataset, where they are known; the modality chooses the templates.

    Raises:
        UserError: the source cannot be read, or lacks a class.
    """
    kind, sign, name = str(source).partition(":")
    way = ways_to_get(class_names, modality, organ)
    if kind == "templates":
        known = templates_of(name or modality, strict=bool(name))
        return _filled(class_names, known[1], f"templates: {known[0]}")
    if kind == "library" and sign:
        return _matched(class_names, library_file(name)["classes"], f"library: {name}", f"library:{name}", way)
    if str(source) not in ("auto", "library"):
        path = split_name(source)[0]
        if path.suffix.lower() == ".txt" and not path.is_dir():
            return _filled(class_names, read_templates(path), f"templates: {path.name}")
        return _matched(class_names, read_table(source), f"file: {path.name}", f"prompts {path}", way)
    files = {name: content["classes"] for name, content in library().items()}
    for file in sorted(files, key=lambda n: n != dataset):
        if not _lacking(class_names, files[file]):
            return _matched(class_names, files[file], f"library: {file}", file, way)
    have = {fold(known) for table in files.values() for known in table}
    lacking = [name for name in class_names if fold(name) not in have]
    # every class is known, but from different tasks: sentences of one task are written against each other, so none is mixed
    reason = (
        f"no sentences for {_named(lacking)}" if lacking else "its classes come from different tasks of the library"
    )
    if str(source) == "library":
        raise UserError(f"the prompt library does not cover this task: {reason}; {way}")
    chosen, templates = templates_of(modality)
    note = f"Templates ({chosen}) are used in place of sentences: {reason}; {way}."
    return _filled(class_names, templates, f"templates: {chosen}", (note,))


def ways_to_get(class_names: Sequence[str], modality: str | None = None, organ: str | None = None) -> str:
    """How a user comes by sentences for these classes, to be put into a message."""
    about = f"--modality {shlex.quote(modality or 'MODALITY')} --organ {shlex.quote(organ or 'ORGAN')}"
    return (
        "give your own with --prompts FILE, or let a language model write them: biomedcoop prompts generate --classes "
        f"{shlex.quote(join_names(class_names))} {about} --out words.json"
    )


def templates_of(modality: str | None, strict: bool = False) -> tuple[str, list[str]]:
    """The shipped templates of a modality: its name as we write it, and the templates, each with ``{}``.

    Args:
        modality: e.g. "CT"; None for those that name none.
        strict: refuse a modality that has no set, and do not fall back on those that name none.
    """
    sets = template_sets()
    by_fold = {fold(name): name for name in sets}
    name = by_fold.get(fold(modality or GENERAL))
    if name is None and strict:
        raise UserError(f"no templates for the modality '{modality}'; there are: {', '.join(sets)}")
    return name or GENERAL, list(sets[name or GENERAL])


@cache
def template_sets() -> dict[str, list[str]]:
    """Modality -> templates, each with ``{}``."""
    text = resources.files(__package__).joinpath("templates.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


@cache
def library() -> dict[str, dict[str, Any]]:
    """The shipped files by name: modality, organ, author, date, version, reviewed, classes."""
    folder = resources.files(__package__).joinpath("library")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".json")), key=lambda f: f.name)
    return {f.name.removesuffix(".json"): json.loads(f.read_text(encoding="utf-8")) for f in files}


def library_file(name: str) -> dict[str, Any]:
    """One shipped file; near matches are offered if there is none of that name."""
    if name not in library():
        near = difflib.get_close_matches(name, library(), n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"it has: {', '.join(library())}"
        raise UserError(f"the prompt library has no file '{name}'; {hint}")
    return library()[name]


def _filled(class_names: Sequence[str], texts: Sequence[str], source: str, notes: tuple[str, ...] = ()) -> Sentences:
    return Sentences(tuple(tuple(t.replace("{}", n) for t in texts) for n in class_names), source, notes)


def _matched(
    class_names: Sequence[str], table: Mapping[str, Sequence[str]], source: str, where: str, way: str
) -> Sentences:
    if lacking := _lacking(class_names, table):
        # the whole list of a small table tells more than a guess
        raise UserError(f"{where}: no sentences for {_named(lacking)}; it has: {', '.join(list(table)[:12])}; {way}")
    folded = {fold(name): sentences for name, sentences in table.items()}
    found = [tuple(text.replace("{}", name) for text in folded[fold(name)]) for name in class_names]
    shortest = min(map(len, found))
    uneven = f"Classes have different numbers of sentences; the first {shortest} of each are used."
    return Sentences(
        tuple(s[:shortest] for s in found), source, (uneven,) if any(len(s) > shortest for s in found) else ()
    )


def _named(class_names: Sequence[str]) -> str:
    return ", ".join(f"'{n}'" for n in class_names[:5]) + (" and others" if len(class_names) > 5 else "")


def _lacking(class_names: Sequence[str], table: Mapping[str, Sequence[str]]) -> list[str]:
    have = {fold(name) for name in table}
    return [name for name in class_names if fold(name) not in have]
