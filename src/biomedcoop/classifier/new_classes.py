"""A fitted classifier for other classes: what base-to-novel needs, and a user who adds a class without images."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from biomedcoop.data.names import clean_class_name, fold
from biomedcoop.errors import UserError, notify
from biomedcoop.methods import get_method
from biomedcoop.prompts.sentences import length_notes, sentences_for, sentences_line
from biomedcoop.tasks.build import task_without_images
from biomedcoop.tasks.sentences import used_per_class

if TYPE_CHECKING:
    from biomedcoop.classifier.classifier import Classifier


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
    sentences = None
    # a method that learned from images has taken from the sentences what it could
    if method.abilities.uses_sentences and not method.abilities.uses_images:
        known = classifier.facts
        dataset = known.get("benchmark_dataset") or known.get("dataset")
        found = sentences_for(names, dataset, os.fspath(prompts), known.get("modality"), known.get("organ"))
        count, sentences = used_per_class(found, settings), found.by_class
        facts |= {"sentences": found.origin, "sentences_per_class": count}
        notes += [*found.notes, *length_notes(names, found, backbone)]
        notify([sentences_line(found.origin, count), *notes] if found.chosen else notes)
    task = task_without_images(backbone, names, sentences)
    state = method.retarget(classifier.state, task, settings)
    if new := [name for name in names if name not in classifier.class_names]:
        notes.append(
            f"Made from a classifier of {', '.join(classifier.class_names)}; no image of {', '.join(new)} was learned from."
        )
    facts["notes"] = [*facts.get("notes", ()), *notes]
    return dataclasses.replace(classifier, class_names=names, state=state, facts=facts)
