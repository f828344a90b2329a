"""The shipped library: sentences for the classes of known tasks, and templates by modality. No tensors.

The sentences describe what a reader sees in an image of the class. A language model wrote them for this package, and a second
reader reviewed them. One JSON file per dataset holds its modality, organ and ``classes``: name -> sentences.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from biomedcoop.data.catalogue import find
from biomedcoop.data.names import fold
from biomedcoop.errors import UserError, nearest
from biomedcoop.prompts.imaging import modalities, same_modality, within_organ

GENERAL = "general"
"""Name of the templates that mention no modality."""
SEVERAL = "several"
"""Modality or organ of a file whose classes have different ones."""


def templates_of(modality: str | None, strict: bool = False) -> tuple[str, list[str]]:
    """The shipped templates of a modality.

    Args:
        modality: e.g. "CT"; None for the templates that mention none.
        strict: refuse a modality without templates, in place of those that mention none.

    Returns:
        Name of the set, and its templates, each with ``{}``.

    Raises:
        UserError: ``strict``, and the modality has no templates.
    """
    sets = template_sets()
    by_fold = {fold(name): name for name in sets}
    wanted = modality or GENERAL
    name = by_fold.get(fold(wanted)) or next((known for known in modalities(wanted) if known in sets), None)
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
    """One shipped file.

    Raises:
        UserError: there is none of this name; the message offers near ones.
    """
    if name not in library():
        raise UserError(f"the prompt library has no file '{name}'; {nearest(name, library())}")
    return library()[name]


def images_of(name: str) -> str:
    """Modality and organ of the images that a file of the library describes: "ultrasound, breast"."""
    content = library()[name]
    return "several kinds" if content["modality"] == SEVERAL else f"{content['modality']}, {content['organ']}"


def described(name: str) -> str:
    """A file of the library as a user names it, and its images: "library:busi (ultrasound, breast)"."""
    return f"library:{name} ({images_of(name)})"


def holders(class_names: Sequence[str]) -> list[str]:
    """Names of the files of the library that have every class."""
    wanted = set(map(fold, class_names))
    return [name for name, content in library().items() if wanted <= set(map(fold, content["classes"]))]


def is_of(name: str, dataset: str | None) -> bool:
    """Whether a file of the library belongs to a dataset, by its own name or by one in the catalogue."""
    entry = find(dataset) if dataset else None
    return dataset is not None and fold(entry.name if entry else dataset) == fold(name)


def shows(name: str, dataset: str | None, modality: str | None, organ: str | None) -> bool | None:
    """Whether a file of the library describes images of this kind; None where too little is known.

    Args:
        dataset: name of the dataset that holds the images.
        modality, organ: of the images, where known; they outweigh the dataset's name.
    """
    content = library()[name]
    agree = [
        None if modality is None else same_modality(modality, content["modality"]),
        None if organ is None else within_organ(organ, content["organ"]),
    ]
    if False in agree:
        return False
    return True if is_of(name, dataset) or None not in agree else None
