"""Sentences for every class of a task: from the shipped library, a user's file, or templates. No tensors."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from biomedcoop.errors import UserError
from biomedcoop.prompts.checks import check_sentences, too_long, uneven
from biomedcoop.prompts.imaging import modalities
from biomedcoop.prompts.library import (
    SEVERAL,
    described,
    holders,
    images_of,
    is_of,
    library,
    library_file,
    shows,
    templates_of,
)
from biomedcoop.prompts.matching import Matched, match, nearly_all
from biomedcoop.prompts.sources import join_names, read_table, read_templates, split_name

if TYPE_CHECKING:
    from biomedcoop.backbones.base import Backbone


@dataclass(frozen=True)
class Sentences:
    """Sentences of every class of a task.

    Attributes:
        by_class: C lists in label order, all of the same length P.
        source: where they are from, e.g. "library: busi".
        notes: what a user should be told, a sentence each.
        shows: modality and organ of the images that the library's sentences describe, e.g. "ultrasound, breast".
        chosen: True if the library's file was found and not named by the user.
        file: what ``biomedcoop prompts check`` takes to check them; None for templates.
    """

    by_class: tuple[tuple[str, ...], ...]
    source: str
    notes: tuple[str, ...] = ()
    shows: str | None = None
    chosen: bool = False
    file: str | None = None

    @property
    def origin(self) -> str:
        """Where they are from, and what images they describe: "library: busi (ultrasound, breast)"."""
        return f"{self.source} ({self.shows})" if self.shows else self.source


def sentences_for(
    class_names: Sequence[str],
    dataset: str | None = None,
    source: str | Path = "auto",
    modality: str | None = None,
    organ: str | None = None,
) -> Sentences:
    """Find sentences for every class. In all of them ``{}`` stands for the class name.

    Args:
        class_names: C names; case, Unicode forms, ``_`` and a hyphen between words make no difference.
        dataset: name of the dataset; a file of the library with this name fits it.
        source: "auto" (the library, if one file has every class and shows images of this kind; else templates), "library" (the
            same, without templates), "library:NAME" (that file; a class may also take the sentences of the one class whose name
            holds all its words), "templates" (those of the modality), "templates:MODALITY", or a path: what
            :func:`~biomedcoop.prompts.sources.read_table` reads, or a text file of templates.
        modality, organ: of the images, where they are known: a file of the library must agree with both, unless it has the
            dataset's name. The modality also chooses the templates.

    Raises:
        UserError: the source cannot be read, or lacks a class.
    """
    way = ways_to_get(class_names, modality, organ)
    kind, sign, name = str(source).partition(":")
    if kind == "templates":
        set_name, templates = templates_of(name or modality, strict=bool(name))
        notes = () if name else _without_templates(modality)
        return _filled(class_names, templates, f"templates: {set_name}", notes)
    if kind == "library" and sign:
        found = _from_library(class_names, name, way)
        if shows(name, dataset, modality, organ) is False:
            stated = ", ".join(word for word in (modality, organ) if word)
            found = replace(
                found, notes=(*found.notes, f"{described(name)} is used for images of another kind ({stated}).")
            )
        return found
    if str(source) not in ("auto", "library"):
        path = split_name(source)[0]
        if path.suffix.lower() == ".txt" and not path.is_dir():
            return _filled(class_names, read_templates(path), f"templates: {path.name}")
        return _from_file(class_names, source, way)
    fitting = [name for name in holders(class_names) if shows(name, dataset, modality, organ)]
    fitting = [name for name in fitting if is_of(name, dataset)] or fitting
    if len(fitting) == 1:
        return replace(_from_library(class_names, fitting[0], way), chosen=True)
    why = _why_not(class_names, dataset, modality, organ, way)
    if str(source) == "library":
        raise UserError(f"the prompt library does not cover this task: {why}")
    set_name, templates = templates_of(modality)
    note = f"Templates ({set_name}) are used in place of sentences: {why}."
    return _filled(class_names, templates, f"templates: {set_name}", (note, *_without_templates(modality)))


def ways_to_get(class_names: Sequence[str], modality: str | None = None, organ: str | None = None) -> str:
    """How a user comes by sentences for these classes, to be put into a message."""
    about = f"--modality {shlex.quote(modality or 'MODALITY')} --organ {shlex.quote(organ or 'ORGAN')}"
    return (
        "give your own with --prompts FILE, or let a language model write them: biomedcoop prompts generate --classes "
        f"{shlex.quote(join_names(class_names))} {about} --out words.json"
    )


def sentences_line(origin: str, count: int) -> str:
    """The line of a report that says which sentences were used."""
    return f"Sentences: {origin}, {count} for each class."


def length_notes(class_names: Sequence[str], sentences: Sentences, backbone: Backbone) -> list[str]:
    """What is to be said of sentences that are longer than a backbone reads."""
    by_class = dict(zip(class_names, sentences.by_class, strict=True))
    counts = {name: backbone.token_counts(list(own)) for name, own in by_class.items()}
    cut = too_long(by_class, counts, backbone.context_length)
    if not cut:
        return []
    class_name, sentence, _ = cut[0]
    check = f"; {_how_to_check(sentences.file)}" if sentences.file else ""
    return [
        f"{len(cut)} of the {sum(map(len, by_class.values()))} sentences have more tokens than the {backbone.context_length} that "
        f"{backbone.name} reads and are cut ({class_name}: '{_shortened(sentence)}'){check}."
    ]


def _why_not(class_names: Sequence[str], dataset: str | None, modality: str | None, organ: str | None, way: str) -> str:
    """Why no file of the library is taken, and what a user can do: names alone do not tell what images show."""
    holding = {name: shows(name, dataset, modality, organ) for name in holders(class_names)}
    possible = [name for name, known in holding.items() if known is not False]
    if possible:
        doubt = (
            "which of them is meant is not known" if all(holding.values()) else "it is not known what your images show"
        )
        ways = " or ".join(_ways_to_take(name, modality, organ) for name in possible)
        return (
            f"{_described(possible)} classes of these names, but {doubt}; to use the sentences, add {ways}; else give your own "
            "with --prompts FILE ('biomedcoop prompts generate' has a language model write them)"
        )
    if holding:
        stated = ", ".join(word for word in (modality, organ) if word)
        return (
            f"{_described(list(holding))} classes of these names, but your images are of another kind ({stated}); {way}"
        )
    near = {name: nearly_all(class_names, content["classes"]) for name, content in library().items()}
    near = {name: keys for name, keys in near.items() if keys and shows(name, dataset, modality, organ) is not False}
    if near:
        have = " and ".join(f"{described(name)} has {_named(keys)}" for name, keys in near.items())
        ways = " or ".join(f"--prompts library:{name}" for name in near)
        return f"no file of the library has all these class names, but {have}; if these are your classes, add {ways}; else {way}"
    known = {key for content in library().values() for key in content["classes"]}
    lacking = match(class_names, dict.fromkeys(known, ())).missing
    # every class is known, but from different tasks: sentences of one task are written against each other, so none is mixed
    reason = (
        f"no sentences for {_named(lacking)}" if lacking else "its classes come from different tasks of the library"
    )
    return f"{reason}; {way}"


def _described(names: Sequence[str]) -> str:
    return " and ".join(map(described, names)) + (" have" if len(names) > 1 else " has")


def _ways_to_take(name: str, modality: str | None, organ: str | None) -> str:
    """The options that take a file of the library: its name, or what is not known yet of the images."""
    content = library()[name]
    unknown = [(key, content[key]) for key, value in (("modality", modality), ("organ", organ)) if value is None]
    options = " ".join(f"--{key} {shlex.quote(value)}" for key, value in unknown if value != SEVERAL)
    return f"--prompts library:{name}" + (f" (or, for train, {options})" if options else "")


def _without_templates(modality: str | None) -> tuple[str, ...]:
    if modality is None or modalities(modality):
        return ()
    return (
        f"No templates are written for the modality '{modality}'; 'biomedcoop prompts list' shows those there are.",
    )


def _from_library(class_names: Sequence[str], name: str, way: str) -> Sentences:
    content = library_file(name)
    matched = match(class_names, content["classes"], near=f"library:{name}")
    _check_complete(matched, class_names, content["classes"], f"library:{name}", way)
    notes = []
    if matched.nearly:
        pairs = ", ".join(f"'{own}' those of '{theirs}'" for own, theirs in matched.nearly.items())
        notes.append(f"Classes take the sentences of library:{name} by a part of the name: {pairs}.")
    return Sentences(
        _evened(matched),
        f"library: {name}",
        tuple(notes),
        shows=images_of(name),
        file=f"library:{name}",
    )


def _from_file(class_names: Sequence[str], source: str | Path, way: str) -> Sentences:
    path, table = split_name(source)[0], read_table(source)
    matched = match(class_names, table)
    _check_complete(matched, class_names, table, f"prompts {path}", way)
    file = Path(source).name
    notes = []
    faults = check_sentences(matched.by_class, serious_only=True)
    total = sum(map(len, matched.by_class.values()))
    for kind, what in (("repeat", "repeated within a class"), ("shared", "shared by two classes")):
        if found := [fault for fault in faults if fault.kind == kind]:
            first = f"{found[0].class_name}: '{_shortened(found[0].sentence)}' {found[0].text}"
            notes.append(f"{file}: {len(found)} of {total} sentences {what} ({first}); {_how_to_check(file)}.")
    if line := uneven(matched.by_class):
        notes.append(f"{file}: {line}; {_how_to_check(file)}.")
    if matched.unused:
        count = f"{len(matched.unused)} of its {len(table)} classes"
        notes.append(f"{file}: not of this task, and not used: {count} ({_named(matched.unused)}).")
    return Sentences(_evened(matched), f"file: {path.name}", tuple(notes), file=file)


def _shortened(sentence: str) -> str:
    """A sentence as an example in a message of one line."""
    return textwrap.shorten(sentence, 80, placeholder=" …")


def _how_to_check(file: str) -> str:
    """The command that names all that is wrong with a file of sentences, to be put into a message."""
    return f"'biomedcoop prompts check {file}' shows all"


def _check_complete(
    matched: Matched, class_names: Sequence[str], table: dict[str, list[str]], where: str, way: str
) -> None:
    if matched.missing:
        # the whole list of a small table tells more than a guess
        had = ", ".join(list(table)[:12])
        raise UserError(f"{where}: no sentences for {_named(matched.missing)}; it has: {had}; {way}")


def _evened(matched: Matched) -> tuple[tuple[str, ...], ...]:
    shortest = min(map(len, matched.by_class.values()))
    return tuple(tuple(sentences[:shortest]) for sentences in matched.by_class.values())


def _filled(class_names: Sequence[str], texts: Sequence[str], source: str, notes: tuple[str, ...] = ()) -> Sentences:
    return Sentences(tuple(tuple(t.replace("{}", n) for t in texts) for n in class_names), source, notes)


def _named(class_names: Sequence[str]) -> str:
    return ", ".join(f"'{n}'" for n in class_names[:5]) + (" and others" if len(class_names) > 5 else "")
