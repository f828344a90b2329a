"""Captions for the image pool: the library's sentences (one half of them) and templates, with the classes each one describes.

Only sentences with an even index are used for training the backbone; the odd half stays unseen, so that studies of the words
that use the backbone are not circular.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

LIBRARY = Path(__file__).parent.parent / "src" / "biomedcoop" / "prompts" / "library"
# named one by one: a file that joins the library later must not change what the shipped weights were trained with
FILES = (
    "bccd_cells",
    "btmri",
    "busi",
    "chmnist",
    "covid",
    "ctkidney",
    "dermamnist",
    "kneexray",
    "kvasir",
    "lungcolon",
    "mednist",
    "octmnist",
    "pneumoniamnist",
    "retina",
)

CLASS_TEMPLATES = (
    "a photo of a {name}.",
    "{name}.",
    "{name}, {modality} of the {organ}.",
    "a {modality} image showing {name}.",
    "a {modality} scan of the {organ}, read as {name}.",
    "this {organ} image shows {name}.",
    "typical appearance of {name} in {modality}.",
)
MODALITY_TEMPLATES = ("{modality} of the {organ}.", "a {modality} image of the {organ}.", "{organ} {modality}.")

# dataset of the pool -> library file
SOURCES = {
    "btmri": "btmri",
    "kneexray": "kneexray",
    "pneumoniamnist": "pneumoniamnist",
    "bccd_cells": "bccd_cells",
    "lungcolon": "lungcolon",
    "mednist": "mednist",
}
# where one class shows another organ than its file
ORGANS = {
    ("kvasir", "esophagitis"): "esophagus",
    ("kvasir", "normal z line"): "esophagus",
    ("kvasir", "normal pylorus"): "stomach",
}
# a chest X-ray of mednist is also what the pneumonia captions speak of: neither may serve as a negative of the other
SYNONYMS = (
    (("mednist", "chest X-ray"), ("pneumoniamnist", "normal lungs")),
    (("mednist", "chest X-ray"), ("pneumoniamnist", "pneumonia lungs")),
)


@dataclass(frozen=True)
class Caption:
    """A text and the (dataset, class) pairs it is true of."""

    text: str
    classes: frozenset[tuple[str, str]]


def modality_and_organ(dataset: str, name: str) -> tuple[str, str]:
    """Modality and organ of one class of a dataset of the pool or a library file; mednist and lungcolon say them in its name."""
    file = SOURCES.get(dataset, dataset)
    library = read_library(file)
    modality, organ = library["modality"], ORGANS.get((file, name), library["organ"])
    if file == "mednist":
        organ, modality = name.split(" ", 1)
    elif file == "lungcolon":
        organ = name.split(" ", 1)[0]
    return modality, organ


@cache
def read_library(file: str) -> dict[str, Any]:
    """One file of the library; of every class only the sentences for training."""
    library: dict[str, Any] = json.loads((LIBRARY / f"{file}.json").read_text(encoding="utf-8"))
    library["classes"] = {name: sentences[::2] for name, sentences in library["classes"].items()}
    return library


@cache
def sentences() -> frozenset[str]:
    """All sentences of the library that train; other captions are templates."""
    return frozenset(s for file in FILES for texts in read_library(file)["classes"].values() for s in texts)


def captions(classes: list[tuple[str, str]]) -> tuple[list[list[Caption]], list[Caption]]:
    """Captions of every class (sentences of the training half, then templates), and those of the modalities.

    Args:
        classes: (dataset, class name) pairs of the pool.

    Returns:
        One list per class, and one list for all.
    """
    per_class: list[list[Caption]] = []
    shared: dict[str, set[tuple[str, str]]] = {}
    for dataset, name in classes:
        library = read_library(SOURCES[dataset])
        modality, organ = modality_and_organ(dataset, name)
        texts = library["classes"][name] + [
            t.format(name=name, modality=modality, organ=organ) for t in CLASS_TEMPLATES
        ]
        per_class.append([Caption(text, frozenset({(dataset, name)})) for text in texts])
        for template in MODALITY_TEMPLATES:
            shared.setdefault(template.format(modality=modality, organ=organ), set()).add((dataset, name))
    return per_class, [Caption(text, frozenset(pairs)) for text, pairs in shared.items()]


def library_captions() -> tuple[list[list[str]], list[str]]:
    """Texts of every class of the library, the training half of its sentences and the templates; and each one's modality.

    A class that two files have, "normal lungs", is one: nothing is pushed away from itself.
    """
    texts: dict[str, list[str]] = {}
    modalities: dict[str, str] = {}
    for file in FILES:
        for name, sentences in read_library(file)["classes"].items():
            modality, organ = modality_and_organ(file, name)
            modalities[name] = modality
            templates = [t.format(name=name, modality=modality, organ=organ) for t in CLASS_TEMPLATES]
            texts[name] = list(dict.fromkeys(texts.get(name, []) + sentences + templates))
    return list(texts.values()), list(modalities.values())
