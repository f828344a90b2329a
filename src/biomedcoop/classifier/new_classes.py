"""A fitted classifier for other classes: what base-to-novel needs, and a user who adds a class without images."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import torch

from biomedcoop.classifier.classifier import Classifier
from biomedcoop.data.names import clean_class_name, fold
from biomedcoop.errors import UserError, notify
from biomedcoop.features.texts import encode_texts
from biomedcoop.methods import Task, get_method
from biomedcoop.prompts.sentences import length_notes, sentences_for, sentences_line


def for_classes(classifier: Classifier, class_names: Sequence[str], prompts: str | os.PathLike[str]) -> Classifier:
    """See :meth:`Classifier.for_classes`."""
    given = [str(name) for name in class_names]
    names = tuple(map(clean_class_name, given))
    different = {fold(name) for name in names}
    if isinstance(class_names, str) or len(names) < 2 or len(different) < len(names) or "" in different:
        raise UserError(
            f"classes {given!a}: give at least two names that differ in more than case, hyphens or invisible characters"
        )
    method, backbone = get_method(classifier.method), classifier.backbone
    # the recipe has no say: the settings are all there
    settings = method.settings(classifier.settings)
    facts = {key: value for key, value in classifier.facts.items() if key != "test"}
    notes: list[str] = []
    teacher = None
    # a method that learned from images has taken from the sentences what it could
    if method.abilities.uses_sentences and not method.abilities.uses_images:
        known = classifier.facts
        dataset = known.get("benchmark_dataset") or known.get("dataset")
        found = sentences_for(names, dataset, os.fspath(prompts), known.get("modality"), known.get("organ"))
        count = min(len(found.by_class[0]), settings.n_sentences)
        facts |= {"sentences": found.origin, "sentences_per_class": count}
        notes += [*found.notes, *length_notes(names, found, backbone)]
        notify([sentences_line(found.origin, count), *notes] if found.chosen else notes)
        texts = [text for own in found.by_class for text in own]
        teacher = torch.from_numpy(encode_texts(backbone, texts)).view(len(names), -1, backbone.embed_dim)
        teacher = teacher.to(backbone.device)
    no_images = torch.zeros(1, 0, backbone.embed_dim, device=backbone.device)
    task = Task(backbone, names, no_images, torch.zeros(1, 0, dtype=torch.int64), teacher)
    state = method.retarget(classifier.state, task, settings)
    if new := [name for name in names if name not in classifier.class_names]:
        notes.append(
            f"Made from a classifier of {', '.join(classifier.class_names)}; no image of {', '.join(new)} was learned from."
        )
    facts["notes"] = [*facts.get("notes", ()), *notes]
    return dataclasses.replace(classifier, class_names=names, state=state, facts=facts)
