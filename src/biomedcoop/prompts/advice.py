"""What messages tell a user whose classes lack sentences: the reason, and the commands that help."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Sequence

from biomedcoop.data.name_lists import join_names
from biomedcoop.prompts.imaging import modalities
from biomedcoop.prompts.library import SEVERAL, described, holders, library, shows
from biomedcoop.prompts.matching import match, nearly_all


def ways_to_get(class_names: Sequence[str], modality: str | None = None, organ: str | None = None) -> str:
    """Part of a message: how to get sentences for these classes."""
    about = f"--modality {shlex.quote(modality or 'MODALITY')} --organ {shlex.quote(organ or 'ORGAN')}"
    return (
        "give your own with --prompts FILE, or let a language model write them: biomedcoop prompts generate --classes "
        f"{shlex.quote(join_names(class_names))} {about} --out words.json"
    )


def why_not_library(
    class_names: Sequence[str], dataset: str | None, modality: str | None, organ: str | None, way: str
) -> str:
    """Part of a message: why no file of the library is used, and what the user can do.

    Class names alone do not tell what the images show.

    Args:
        class_names, dataset, modality, organ: as for :func:`biomedcoop.prompts.sentences_for`.
        way: what :func:`ways_to_get` gives for these classes.
    """
    holding = {name: shows(name, dataset, modality, organ) for name in holders(class_names)}
    possible = [name for name, known in holding.items() if known is not False]
    if possible:
        doubt = "several of them fit" if all(holding.values()) else "it is unknown what your images show"
        ways = " or ".join(_ways_to_take(name, modality, organ) for name in possible)
        return (
            f"{_described(possible)} classes of these names, but {doubt}; to use the sentences, add {ways}; else give your own "
            "with --prompts FILE ('biomedcoop prompts generate' lets a language model write them)"
        )
    if holding:
        stated = ", ".join(word for word in (modality, organ) if word)
        return (
            f"{_described(list(holding))} classes of these names, but your images are of another kind ({stated}); {way}"
        )
    near = {name: nearly_all(class_names, content["classes"]) for name, content in library().items()}
    near = {name: keys for name, keys in near.items() if keys and shows(name, dataset, modality, organ) is not False}
    if near:
        have = " and ".join(f"{described(name)} has {quoted(keys)}" for name, keys in near.items())
        ways = " or ".join(f"--prompts library:{name}" for name in near)
        return f"no file of the library has all these class names, but {have}; if these are your classes, add {ways}; else {way}"
    known = {key for content in library().values() for key in content["classes"]}
    lacking = match(class_names, dict.fromkeys(known, ())).missing
    # every class is known, but from different tasks: sentences of one task are written against each other, so none is mixed
    reason = (
        f"no sentences for {quoted(lacking)}" if lacking else "its classes come from different tasks of the library"
    )
    return f"{reason}; {way}"


def _described(names: Sequence[str]) -> str:
    return " and ".join(map(described, names)) + (" have" if len(names) > 1 else " has")


def _ways_to_take(name: str, modality: str | None, organ: str | None) -> str:
    """The options that select a file of the library: its name, or what the images show where that is unknown."""
    content = library()[name]
    unknown = [(key, content[key]) for key, value in (("modality", modality), ("organ", organ)) if value is None]
    options = " ".join(f"--{key} {shlex.quote(value)}" for key, value in unknown if value != SEVERAL)
    return f"--prompts library:{name}" + (f" (or, for train, {options})" if options else "")


def missing_templates(modality: str | None) -> tuple[str, ...]:
    """A note if the package has no templates for a modality."""
    if modality is None or modalities(modality):
        return ()
    return (
        f"No templates are written for the modality '{modality}'; 'biomedcoop prompts list' shows the modalities that have some.",
    )


def shortened(sentence: str) -> str:
    """A sentence cut to 80 characters, as an example in a message."""
    return textwrap.shorten(sentence, 80, placeholder=" …")


def how_to_check(file: str) -> str:
    """Part of a message: the command that lists all faults of a file of sentences."""
    return f"'biomedcoop prompts check {file}' shows all"


def quoted(class_names: Sequence[str]) -> str:
    """The first five class names in quotes."""
    return ", ".join(f"'{n}'" for n in class_names[:5]) + (" and others" if len(class_names) > 5 else "")
