"""Sentences for every class of a task: from the shipped library, a user's file, or templates. No tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from biomedcoop.errors import UserError
from biomedcoop.prompts.advice import how_to_check, missing_templates, quoted, shortened, ways_to_get, why_not_library
from biomedcoop.prompts.checks import check_sentences, too_long, uneven
from biomedcoop.prompts.library import described, holders, images_of, is_of, library_file, shows, templates_of
from biomedcoop.prompts.matching import Matched, match
from biomedcoop.prompts.sources import read_table, read_templates, split_name


class TextReader(Protocol):
    """What :func:`length_notes` needs of a backbone; ``prompts`` imports no tensors."""

    name: str
    context_length: int

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Number of tokens of each text before it is cut to the context length."""


@dataclass(frozen=True)
class Sentences:
    """Sentences of every class of a task.

    Attributes:
        by_class: C lists in label order, all of the same length P.
        source: where the sentences come from, e.g. "library: busi".
        notes: notes for the user, one sentence each.
        shows: modality and organ of the images that the library's sentences describe, e.g. "ultrasound, breast".
        chosen: True if the user did not name the library's file.
        file: argument of ``biomedcoop prompts check`` for these sentences; None for templates.
    """

    by_class: tuple[tuple[str, ...], ...]
    source: str
    notes: tuple[str, ...] = ()
    shows: str | None = None
    chosen: bool = False
    file: str | None = None

    @property
    def origin(self) -> str:
        """Source of the sentences and the images they describe: "library: busi (ultrasound, breast)"."""
        return f"{self.source} ({self.shows})" if self.shows else self.source


def sentences_for(
    class_names: Sequence[str],
    dataset: str | None = None,
    source: str | Path = "auto",
    modality: str | None = None,
    organ: str | None = None,
) -> Sentences:
    """Find sentences for every class; ``{}`` in a source stands for the class name.

    Args:
        class_names: C names; case, Unicode forms, ``_`` and a hyphen between words make no difference.
        dataset: name of the dataset; a file of the library with this name fits it.
        source: one of these.
            "auto": a file of the library that has every class and describes images of this kind; templates if there is none.
            "library": the same, but an error if there is none.
            "library:NAME": that file; a class may also take the sentences of the one class whose name holds all its words.
            "templates": the templates of the modality. "templates:MODALITY": those of another one.
            A path: what :func:`~biomedcoop.prompts.sources.read_table` reads, or a text file of templates.
        modality, organ: of the images, where known. A file of the library must agree with both, unless it has the dataset's
            name. The modality also chooses the templates.

    Raises:
        UserError: the source cannot be read, or lacks a class.
    """
    way = ways_to_get(class_names, modality, organ)
    kind, sign, name = str(source).partition(":")
    if kind == "templates":
        set_name, templates = templates_of(name or modality, strict=bool(name))
        notes = () if name else missing_templates(modality)
        return _filled(class_names, templates, f"templates: {set_name}", notes)
    if kind == "library" and sign:
        sentences = _from_library(class_names, name, way)
        if shows(name, dataset, modality, organ) is False:
            stated = ", ".join(word for word in (modality, organ) if word)
            note = f"{described(name)} is used for images of another kind ({stated})."
            sentences = replace(sentences, notes=(*sentences.notes, note))
        return sentences
    if str(source) not in ("auto", "library"):
        path = split_name(source)[0]
        if path.suffix.lower() == ".txt" and not path.is_dir():
            return _filled(class_names, read_templates(path), f"templates: {path.name}")
        return _from_file(class_names, source, way)
    fitting = [name for name in holders(class_names) if shows(name, dataset, modality, organ)]
    fitting = [name for name in fitting if is_of(name, dataset)] or fitting
    if len(fitting) == 1:
        return replace(_from_library(class_names, fitting[0], way), chosen=True)
    why = why_not_library(class_names, dataset, modality, organ, way)
    if str(source) == "library":
        raise UserError(f"the prompt library does not cover this task: {why}")
    set_name, templates = templates_of(modality)
    note = f"Templates ({set_name}) are used in place of sentences: {why}."
    return _filled(class_names, templates, f"templates: {set_name}", (note, *missing_templates(modality)))


def sentences_line(origin: str, count: int) -> str:
    """The line of a report that says which sentences were used."""
    return f"Sentences: {origin}, {count} for each class."


def length_notes(class_names: Sequence[str], sentences: Sentences, backbone: TextReader, used: int) -> list[str]:
    """Notes on sentences that are longer than a backbone reads, among the first ``used`` of each class."""
    by_class = {name: texts[:used] for name, texts in zip(class_names, sentences.by_class, strict=True)}
    counts = {name: backbone.token_counts(list(texts)) for name, texts in by_class.items()}
    cut = too_long(by_class, counts, backbone.context_length)
    if not cut:
        return []
    class_name, sentence, _ = cut[0]
    check = f"; {how_to_check(sentences.file)}" if sentences.file else ""
    return [
        f"{len(cut)} of the {sum(map(len, by_class.values()))} sentences have more tokens than the {backbone.context_length} that "
        f"{backbone.name} reads and are cut ({class_name}: '{shortened(sentence)}'){check}."
    ]


def _from_library(class_names: Sequence[str], name: str, way: str) -> Sentences:
    content = library_file(name)
    matched = match(class_names, content["classes"], near=f"library:{name}")
    _check_complete(matched, class_names, content["classes"], f"library:{name}", way)
    notes = []
    if matched.nearly:
        pairs = ", ".join(f"'{name}' those of '{longer}'" for name, longer in matched.nearly.items())
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
        if of_kind := [fault for fault in faults if fault.kind == kind]:
            first = f"{of_kind[0].class_name}: '{shortened(of_kind[0].sentence)}' {of_kind[0].text}"
            notes.append(f"{file}: {len(of_kind)} of {total} sentences {what} ({first}); {how_to_check(file)}.")
    if line := uneven(matched.by_class):
        notes.append(f"{file}: {line}; {how_to_check(file)}.")
    if matched.unused:
        count = f"{len(matched.unused)} of its {len(table)} classes"
        notes.append(f"{file}: not of this task, and not used: {count} ({quoted(matched.unused)}).")
    return Sentences(_evened(matched), f"file: {path.name}", tuple(notes), file=file)


def _check_complete(
    matched: Matched, class_names: Sequence[str], table: dict[str, list[str]], where: str, way: str
) -> None:
    if matched.missing:
        # the whole list of a small table tells more than a guess
        had = ", ".join(list(table)[:12])
        raise UserError(f"{where}: no sentences for {quoted(matched.missing)}; it has: {had}; {way}")


def _evened(matched: Matched) -> tuple[tuple[str, ...], ...]:
    shortest = min(map(len, matched.by_class.values()))
    return tuple(tuple(sentences[:shortest]) for sentences in matched.by_class.values())


def _filled(class_names: Sequence[str], texts: Sequence[str], source: str, notes: tuple[str, ...] = ()) -> Sentences:
    return Sentences(tuple(tuple(t.replace("{}", n) for t in texts) for n in class_names), source, notes)
