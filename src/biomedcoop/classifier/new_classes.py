"""Change the classes of a fitted classifier: for the base-to-novel protocol, or to add a class without images."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from biomedcoop.classifier.origin import with_origin
from biomedcoop.data.names import clean_class_name, fold
from biomedcoop.errors import UserError, notify
from biomedcoop.methods import all_methods, get_method
from biomedcoop.prompts.sentences import length_notes, sentences_for, sentences_line
from biomedcoop.tasks.build import task_without_images
from biomedcoop.tasks.request import AUTO, absolute
from biomedcoop.tasks.sentences import sentences_read, used_per_class

if TYPE_CHECKING:
    from biomedcoop.classifier.classifier import Classifier


def for_classes(classifier: Classifier, class_names: Sequence[str], prompts: str | os.PathLike[str]) -> Classifier:
    """See :meth:`Classifier.for_classes`."""
    names = checked_class_names(class_names)
    method, backbone = get_method(classifier.method), classifier.backbone.original
    if not method.abilities.retargets:
        able = ", ".join(name for name, other in all_methods().items() if other.abilities.retargets)
        raise UserError(
            f"method {method.name} cannot take new classes, because it learns classes from images; methods that can: {able}"
        )
    # no recipe applies: the classifier holds all settings
    settings = method.settings(classifier.settings)
    facts = {key: value for key, value in classifier.facts.items() if key != "test"}
    notes: list[str] = []
    sentences = None
    # a method that learns from images needs no sentences for new classes
    if method.abilities.uses_sentences and not method.abilities.uses_images:
        known = classifier.facts
        dataset = known.get("benchmark_dataset") or known.get("dataset")
        chosen = sentences_for(names, dataset, os.fspath(prompts), known.get("modality"), known.get("organ"))
        count, sentences = used_per_class(chosen, settings), chosen.by_class
        facts |= {"sentences": chosen.origin, "sentences_per_class": count}
        facts["sentences_by_class"] = sentences_read(names, chosen, settings)
        notes += [*chosen.notes, *length_notes(names, chosen, backbone, count)]
        notify([sentences_line(chosen.origin, count), *notes] if chosen.chosen else notes)
    elif (source := os.fspath(prompts)) != AUTO:
        sentences_for(names, None, source)  # a wrong name or file is refused where nothing reads it, too
        notify(
            [f"{method.name} reads the names of new classes and no sentences about them, so {source} changes nothing"]
        )
    task = task_without_images(backbone, names, sentences)
    state = method.retarget(classifier.state, task, settings)
    if new := [name for name in names if name not in classifier.class_names]:
        notes.append(
            f"Made from a classifier of {', '.join(classifier.class_names)}; it was trained on no image of {', '.join(new)}."
        )
    facts["notes"] = [*facts.get("notes", ()), *notes]
    # what training changed in the image tower may depend on the classes
    own = method.adapted(state, backbone) if method.abilities.changes_towers else classifier.backbone
    # images of other classes may well be unlike the training images, and their sets have no calibration images
    marks = "marks of images unlike the training images (unlike_training)"
    if lost := [marks] * (classifier.domain is not None) + ["prediction sets"] * (classifier.sets is not None):
        notify([f"Left out with other classes, because they were fitted for those of training: {' and '.join(lost)}."])
    changed = dataclasses.replace(
        classifier, class_names=names, state=state, backbone=own, facts=facts, domain=None, sets=None
    )
    origin = classifier.origin
    if (
        origin is None or origin.prompts is not None
    ):  # of two changes of the classes, the second alone does not give the same
        return changed
    return with_origin(changed, dataclasses.replace(origin, prompts=absolute("prompts", os.fspath(prompts))))


def checked_class_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """Class names in their form for prompts.

    Raises:
        UserError: fewer than two, an empty one, or two that are the same but for case, hyphens or invisible characters.
    """
    as_typed = [str(name) for name in class_names] if isinstance(class_names, Iterable) else [str(class_names)]
    names = tuple(map(clean_class_name, as_typed))
    distinct = {fold(name) for name in names}
    if isinstance(class_names, str) or len(names) < 2 or len(distinct) < len(names) or "" in distinct:
        raise UserError(
            f"classes {', '.join(map(ascii, as_typed)) or 'none'}: give at least two names that differ in more than case, hyphens "
            "or invisible characters"
        )
    return names
