"""Modality, organ and class sentences of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from biomedcoop.data.catalogue import find
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.simulate.load import PREFIX, parse_spec
from biomedcoop.prompts import Sentences, sentences_for


def modality_and_organ(
    data: Dataset, modality: str | None = None, organ: str | None = None
) -> tuple[str | None, str | None]:
    """Modality and organ of a dataset: as the user states them, else from the catalogue or the simulator, else None."""
    by_simulator = data.simulated and data.name.startswith(PREFIX)
    about = parse_spec(data.name).task if by_simulator else find(data.name, data.class_names)
    known = (about.modality, about.organ) if about else (None, None)
    return modality or known[0], organ or known[1]


def find_sentences(
    data: Dataset, prompts: str | Path = "auto", modality: str | None = None, organ: str | None = None
) -> Sentences:
    """Sentences for every class of a dataset; see :func:`biomedcoop.prompts.sentences_for`."""
    entry = find(data.name, data.class_names)
    modality, organ = modality_and_organ(data, modality, organ)
    return sentences_for(data.class_names, entry.name if entry else data.name, prompts, modality, organ)


def used_per_class(sentences: Sentences, settings: Any) -> int:
    """Number of sentences of each class that a method with these settings reads."""
    available = len(sentences.by_class[0])
    return min(available, getattr(settings, "n_sentences", available))


def sentences_read(class_names: Sequence[str], sentences: Sentences, settings: Any) -> dict[str, list[str]]:
    """The sentences of each class that a method with these settings reads, by class name."""
    count = used_per_class(sentences, settings)
    return {name: list(texts[:count]) for name, texts in zip(class_names, sentences.by_class, strict=True)}
