"""Fit classifiers from a plan: encode the images, train, and record the facts of the run."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

import numpy as np

from biomedcoop.backbones.base import Backbone
from biomedcoop.classifier.classifier import Classifier
from biomedcoop.classifier.domain import CANNOT_TELL, Domain, can_tell
from biomedcoop.classifier.sets import PredictionSets
from biomedcoop.classifier.temperature import held_out_temperatures
from biomedcoop.data.images.facts import Tally
from biomedcoop.data.sampling.leakage import digest
from biomedcoop.errors import notify
from biomedcoop.lazy import torch
from biomedcoop.methods import Task
from biomedcoop.progress import Progress, counting
from biomedcoop.tasks.build import build_task
from biomedcoop.tasks.plan import Plan
from biomedcoop.threads import torch_threads


def fit_plan(
    plan: Plan, backbone: Backbone, progress: Progress | None = None, *, say: bool = False, stage: str = "training"
) -> list[Classifier]:
    """Train one classifier for each seed of the request, all seeds together.

    Args:
        progress: called with the state of the work.
        say: issue notes on unusual training images before training.
        stage: word for the training in the progress; the method's name follows.

    Raises:
        ImageError: a training image cannot be read.
        UserError: the method cannot use the backbone, or it is that of a plug-in, and its code fails.
    """
    data, method, request = plan.data, plan.method, plan.request
    if len({len(draw) for draw in plan.draws}) > 1:  # whole groups were set aside for prediction sets
        runs = (plan.run(number) for number in range(len(request.seeds)))
        return [one for run in runs for one in fit_plan(run, backbone, progress, say=say, stage=stage)]
    tally = Tally()
    task = build_task(plan, backbone, count=counting(progress, "encoding training images"), tally=tally)
    if say:
        notify(tally.notes())
    stage = f"{stage} {method.name}"
    training = None if progress is None else lambda done, total, words: progress(f"{stage} ({words})", done, total)
    threads = method.threads(task, plan.settings)
    with torch_threads(threads), torch.enable_grad():
        states = method.fit(task, plan.settings, request.seeds, training)
        temperatures, calibrated = held_out_temperatures(plan, task)
    if say and request.calibrate == "yes":
        notify(dict.fromkeys(words for words, t in zip(calibrated, temperatures, strict=True) if t == 1 and words))
    settings, notes = dataclasses.asdict(plan.settings), fit_notes(plan, backbone)
    classifiers = []
    for run, (seed, state) in enumerate(zip(request.seeds, states, strict=True)):
        draw, choice = plan.draws[run], plan.choices[run]
        own = method.adapted(state, backbone)
        support = data.select(np.concatenate([draw, choice.val_draw, plan.calibration[run]]))
        facts = {
            **plan.facts,
            "seed": seed,
            "chosen": choice.how,
            "calibrated": calibrated[run],
            "tried": method.tried(state),
            "device": str(backbone.device),
            "precision": backbone.precision,
            "depths": sorted(depth for depth in tally.depths if depth),
            **({"reading": vars(data.reading), "windows": sorted(tally.windows)} if data.reading is not None else {}),
            "threads": threads,
            **({"changes_towers": True} if own is not backbone else {}),
            "runs_together": len(request.seeds),
            "notes": notes,
            # a later evaluation compares these half hashes to find its images among the training images
            "training_images": sorted({digest(image) for image in support.images}),
        }
        domain = _domain(plan, task, run, own)
        one = Classifier(data.class_names, method.name, state, own, settings, facts, temperatures[run], domain)
        classifiers.append(one if request.alpha is None else replace(one, sets=_sets(plan, task, one, run)))
    return classifiers


def _sets(plan: Plan, task: Task, classifier: Classifier, run: int) -> PredictionSets:
    """What the prediction sets of one run need, from its calibration images."""
    from biomedcoop.features.images import encode_images

    request, images = plan.request, plan.data.select(plan.calibration[run])
    assert request.alpha is not None
    features = encode_images(classifier.backbone, images)
    kind = request.alpha, request.score, request.by_class
    if not plan.refits:
        return PredictionSets.split(classifier, features, images.labels, *kind)
    sentences = None if task.sentence_features is None else task.sentence_features.cpu().numpy()
    seed = request.seeds[run]
    return PredictionSets(*kind, images.labels, features=features, sentences=sentences, seed=seed)


def fit_notes(plan: Plan, backbone: Backbone) -> list[str]:
    """All notes on a plan, and one if the images that it draws are too few for a domain."""
    return [*plan.notes_with(backbone), *domain_notes(plan)]


def domain_notes(plan: Plan) -> list[str]:
    """The note that a model which learns from images has no domain, if the first run of a plan gives none."""
    draw = np.unique(plan.draws[0])
    return [CANNOT_TELL] if len(draw) and not can_tell(plan.data.labels[draw]) else []


def _domain(plan: Plan, task: Task, run: int, backbone: Backbone) -> Domain | None:
    """The domain of the training images of one run, by their centre crops' features of ``backbone``; each image counts once."""
    from biomedcoop.features.images import encode_images

    draw, first = np.unique(plan.draws[run], return_index=True)
    labels = plan.data.labels[draw]
    if plan.views == 1 and backbone is task.backbone:
        return Domain.of(task.features[run].cpu().numpy()[first], labels)
    return Domain.of(encode_images(backbone, plan.data.select(draw)), labels)


def load_for(backbone: Any, device: str = "cpu", precision: str = "float32") -> Backbone:
    """The backbone of a request: a loaded backbone itself, or the one loaded from a name or folder."""
    from biomedcoop.backbones import load_backbone

    return backbone if isinstance(backbone, Backbone) else load_backbone(backbone, device=device, precision=precision)
