"""Captions for the image pool: the library's sentences (one half of them) and templates, with the classes each one describes.

Only sentences with an even index are used for training the backbone and its vocabulary; the odd half stays unseen, so that
studies of the words that use the backbone are not circular.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

LIBRARY = Path(__file__).parent.parent / "src" / "biomedcoop" / "prompts" / "library"

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

# (dataset, class) of the pool -> (library file, modality, organ)
SOURCES = {
    "btmri": ("btmri", "MRI", "brain"),
    "kneexray": ("kneexray", "X-ray", "knee"),
    "pneumoniamnist": ("pneumoniamnist", "X-ray", "chest"),
    "bccd_cells": ("bccd_cells", "light microscopy", "blood"),
    "lungcolon": ("lungcolon", "histopathology", ""),
    "mednist": ("mednist", "", ""),
    "simulated breast-ultrasound": ("busi", "ultrasound", "breast"),
    "simulated kidney-ct": ("ctkidney", "CT", "kidney"),
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

    @property
    def datasets(self) -> frozenset[str]:
        return frozenset(dataset for dataset, _ in self.classes)


def modality_and_organ(dataset: str, name: str) -> tuple[str, str]:
    """Modality and organ of one class; mednist and lungcolon say them in the class name."""
    _, modality, organ = SOURCES[dataset]
    if dataset == "mednist":
        organ, modality = name.split(" ", 1)
    elif dataset == "lungcolon":
        organ = name.split(" ", 1)[0]
    return modality, organ


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
        library = json.loads((LIBRARY / f"{SOURCES[dataset][0]}.json").read_text(encoding="utf-8"))
        modality, organ = modality_and_organ(dataset, name)
        texts = library["classes"][name][::2]
        texts += [t.format(name=name, modality=modality, organ=organ) for t in CLASS_TEMPLATES]
        per_class.append([Caption(text, frozenset({(dataset, name)})) for text in texts])
        for template in MODALITY_TEMPLATES:
            shared.setdefault(template.format(modality=modality, organ=organ), set()).add((dataset, name))
    return per_class, [Caption(text, frozenset(pairs)) for text, pairs in shared.items()]


def library_captions() -> list[list[str]]:
    """Texts of every class of the library, the training half of its sentences and the templates."""
    per_class = []
    for path in sorted(LIBRARY.glob("*.json")):
        library = json.loads(path.read_text(encoding="utf-8"))
        for name, sentences in library["classes"].items():
            words = {"name": name, "modality": library["modality"], "organ": library["organ"]}
            per_class.append(sentences[::2] + [template.format(**words) for template in CLASS_TEMPLATES])
    return per_class


def vocabulary_texts() -> list[str]:
    """Everything the WordPiece vocabulary is learned from."""
    texts: list[str] = []
    for path in sorted(LIBRARY.glob("*.json")):
        library = json.loads(path.read_text(encoding="utf-8"))
        for name, sentences in library["classes"].items():
            texts += sentences[::2]
            for template in CLASS_TEMPLATES + MODALITY_TEMPLATES:
                texts += [template.format(name=name, modality=library["modality"], organ=library["organ"])] * 3
    return texts
