"""Captions for the image pool: the library's sentences (one half of them) and templates, with the classes each one describes.

Only sentences with an even index are used for training the backbone and its vocabulary; the odd half stays unseen, so that
studies of the words that use the backbone are not circular.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

LIBRARY = Path(__file__).parent.parent / "src" / "biomedcoop" / "prompts" / "library"
# named one by one: a file that joins the library later must not change what the shipped weights were trained with
FILES = (
    "bccd_cells",
    "btmri",
    "busi",
    "covid",
    "ctkidney",
    "dermamnist",
    "kneexray",
    "lungcolon",
    "mednist",
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


def modality_and_organ(dataset: str, name: str) -> tuple[str, str]:
    """Modality and organ of one class; mednist and lungcolon say them in the class name."""
    _, modality, organ = SOURCES[dataset]
    if dataset == "mednist":
        organ, modality = name.split(" ", 1)
    elif dataset == "lungcolon":
        organ = name.split(" ", 1)[0]
    return modality, organ


def read_library(file: str) -> dict[str, Any]:
    """One file of the library; of every class only the sentences for training."""
    library: dict[str, Any] = json.loads((LIBRARY / f"{file}.json").read_text(encoding="utf-8"))
    library["classes"] = {name: sentences[::2] for name, sentences in library["classes"].items()}
    return library


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
        library = read_library(SOURCES[dataset][0])
        modality, organ = modality_and_organ(dataset, name)
        texts = library["classes"][name] + [
            t.format(name=name, modality=modality, organ=organ) for t in CLASS_TEMPLATES
        ]
        per_class.append([Caption(text, frozenset({(dataset, name)})) for text in texts])
        for template in MODALITY_TEMPLATES:
            shared.setdefault(template.format(modality=modality, organ=organ), set()).add((dataset, name))
    return per_class, [Caption(text, frozenset(pairs)) for text, pairs in shared.items()]


def library_captions() -> tuple[list[list[str]], list[str]]:
    """Texts of every class of the library, the training half of its sentences and the templates; and each one's modality."""
    per_class, modalities = [], []
    for file in FILES:
        library = read_library(file)
        for name, sentences in library["classes"].items():
            words = {"name": name, "modality": library["modality"], "organ": library["organ"]}
            per_class.append(sentences + [template.format(**words) for template in CLASS_TEMPLATES])
            modality = name.split(" ", 1)[1] if file == "mednist" else library["modality"]
            modalities.append(modality)
    return per_class, modalities


def vocabulary_texts() -> list[str]:
    """Everything the WordPiece vocabulary is learned from."""
    texts: list[str] = []
    for file in FILES:
        library = read_library(file)
        for name, sentences in library["classes"].items():
            texts += sentences
            for template in CLASS_TEMPLATES + MODALITY_TEMPLATES:
                texts += [template.format(name=name, modality=library["modality"], organ=library["organ"])] * 3
    return texts


def new_tokenizer(size: int = 3072) -> Tokenizer:
    """Uncased WordPiece on the project's own text: every character, the most frequent words, and the most frequent
    beginnings and endings of words for the rest. (The trainer of the library breaks ties at random.)"""
    rust = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    rust.normalizer = normalizers.BertNormalizer(lowercase=True)
    rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for text in vocabulary_texts():
        words.update(word for word, _ in rust.pre_tokenizer.pre_tokenize_str(rust.normalizer.normalize_str(text)))
    parts: Counter[str] = Counter()
    for word, count in words.items():
        for cut in range(2, len(word) - 1):
            parts[word[:cut]] += count
            parts["##" + word[cut:]] += count
    characters = sorted(set("abcdefghijklmnopqrstuvwxyz0123456789").union(*words))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = dict.fromkeys(special + characters + ["##" + c for c in characters])
    for counts, limit in ((words, size * 7 // 8), (parts, size)):
        for piece, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
            if len(vocabulary) < limit:
                vocabulary[piece] = None
    rust.model = models.WordPiece({piece: i for i, piece in enumerate(vocabulary)}, unk_token="[UNK]")
    # a sign that no text has is left out: [UNK] was never trained
    known = "".join(re.escape(c) for c in characters)
    rust.normalizer = normalizers.Sequence([rust.normalizer, normalizers.Replace(Regex(rf"[^{known}\s]"), " ")])
    rust.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    rust.decoder = decoders.WordPiece()
    return rust
