"""The words of a task: what its images show, and the sentences about its classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from biomedcoop.data.catalogue import find
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.simulate.load import PREFIX, parse_spec
from biomedcoop.prompts import Sentences, sentences_for


def modality_and_organ(
    data: Dataset, modality: str | None = None, organ: str | None = None
) -> tuple[str | None, str | None]:
    """What a dataset shows: as the user states it, else where the catalogue or the simulator knows it."""
    drawn_here = data.simulated and data.name.startswith(PREFIX)
    about = parse_spec(data.name).task if drawn_here else find(data.name, data.class_names)
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
    """How many sentences of each class a method with these settings reads."""
    there = len(sentences.by_class[0])
    return min(there, getattr(settings, "n_sentences", there))
