"""The plan of a fit: its drawn images, settings and sentences.

Planning reads no image and loads no backbone, so that a faulty request fails before long work starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from biomedcoop.data.catalogue import find
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.sampling.calibration import one_of_each_set, set_aside
from biomedcoop.data.sampling.few_shot import Draw, sample_few_shot, sample_realistic, select_classes
from biomedcoop.errors import UserError
from biomedcoop.prompts import Sentences
from biomedcoop.prompts.sentences import length_notes, sentences_line
from biomedcoop.tasks.choice import Choice, choices_of, kept_for_validation, sets_of
from biomedcoop.tasks.mixture import mixture_line
from biomedcoop.tasks.options import ALL, MAX_VIEWS, REALISTIC, SCORES, images_needed
from biomedcoop.tasks.request import AUTO, FitRequest
from biomedcoop.tasks.sentences import find_sentences, modality_and_organ, sentences_read, used_per_class
from biomedcoop.tasks.unlabelled import Unlabelled, unlabelled_of, without_copies

if TYPE_CHECKING:
    from biomedcoop.backbones.base import Backbone
    from biomedcoop.methods import Method

DrawImages = Callable[[Dataset, "int | None", int], Draw]
"""Draws the training images of a run: (dataset, shots, seed) -> positions in the dataset."""

UNEVEN = 3
"""Ratio of the largest to the smallest class of the training images above which a note tells of it."""

DEFAULT_SHOTS = 16
"""Training images per class if the request names no number and every class has as many."""


@dataclass(frozen=True)
class Plan:
    """A request that passed every check that needs neither images nor backbone.

    Attributes:
        request: the request behind the plan.
        data: the dataset.
        method, settings: the method and its resolved settings.
        benchmark: name of the benchmark dataset, or None.
        modality, organ: content of the images, or None where it is not known.
        sentences: sentences of every class; None for a method that reads none.
        shots: training images per class, "all", or None for a method that learns from no image.
        draws: training images of each run.
        choices: what each run chooses values on.
        calibration: images of each run that calibrate its prediction sets; empty for no sets.
        refits: True if these are training images too, so that the sets need a fit for each candidate class.
        published: True if the settings are those published for this dataset.
        views: number of views of each training image.
        per_epoch: True if view e is for epoch e.
        listed: unlabelled images, some of which may be copies; None for a method that uses none.
        notes: notes to issue before the work starts.
    """

    request: FitRequest
    data: Dataset
    method: Method
    settings: Any
    benchmark: str | None
    modality: str | None
    organ: str | None
    sentences: Sentences | None
    shots: int | str | None
    draws: list[Draw]
    choices: list[Choice]
    calibration: list[Draw]
    refits: bool
    published: bool
    views: int
    per_epoch: bool
    listed: Unlabelled | None
    notes: tuple[str, ...]

    @property
    def val_draws(self) -> list[Draw]:
        """Validation images of each run."""
        return [choice.val_draw for choice in self.choices]

    @property
    def drawn(self) -> Draw:
        """Positions of all training, validation and calibration images, sorted, each once."""
        return np.unique(np.concatenate([*self.draws, *self.val_draws, *self.calibration]))

    def run(self, number: int) -> Plan:
        """The plan of one of its runs."""
        request = replace(self.request, seeds=self.request.seeds[number : number + 1])
        parts = {name: getattr(self, name)[number : number + 1] for name in ("draws", "choices", "calibration")}
        return replace(self, request=request, **parts)

    @cached_property
    def unlabelled(self) -> Unlabelled | None:
        """The unlabelled images without copies of training and test images, whose bytes are read.

        Raises:
            UserError: no image is left.
            ImageError: an image cannot be read.
        """
        return None if self.listed is None else without_copies(self.listed, self.data, self.drawn)

    def notes_with(self, backbone: Backbone) -> list[str]:
        """All notes, including those on unlabelled images and on sentences that are too long for the backbone."""
        notes = [*self.notes, *(self.unlabelled.notes if self.unlabelled else ())]
        if self.sentences is None:
            return notes
        used = used_per_class(self.sentences, self.settings)
        return [
            *notes,
            *self.sentences.notes,
            *length_notes(self.data.class_names, self.sentences, backbone, used),
        ]

    def all_notes(self, backbone: Backbone) -> list[str]:
        """All notes, and how the classifiers are made: what a training run says before the work."""
        made = [
            line
            for choice in self.choices
            for line in how_it_was_made({**self.facts, "chosen": choice.how, "precision": backbone.precision})
        ]
        return list(dict.fromkeys([*self.notes_with(backbone), *made]))

    def of_classes(self, labels: Sequence[int]) -> Plan:
        """The plan for some of its classes, with the images and sentences that it has for them; ``labels[i]`` becomes class i."""
        kept = np.isin(self.data.labels, labels)
        new_position = np.cumsum(kept) - 1

        def part(draw: Draw) -> Draw:
            return np.asarray(new_position[draw[kept[draw]]], dtype=np.int64)

        choices = [
            choice._replace(val_draw=part(choice.val_draw), folds=choice.folds[kept[draw]])
            for choice, draw in zip(self.choices, self.draws, strict=True)
        ]
        words = self.sentences
        if words is not None:
            words = replace(words, by_class=tuple(words.by_class[label] for label in labels))
        data, draws = select_classes(self.data, labels), [part(draw) for draw in self.draws]
        calibration = [part(draw) for draw in self.calibration]
        return replace(self, data=data, sentences=words, draws=draws, choices=choices, calibration=calibration)

    @property
    def facts(self) -> dict[str, Any]:
        """JSON values that the artefact keeps of the plan."""
        sentences = self.sentences
        return {
            "dataset": self.data.name,
            "simulated": self.data.simulated,
            "shots": self.shots,
            "sampling": self.request.sampling,
            "recipe": self.request.recipe,
            "views": "per-epoch" if self.per_epoch else self.views,
            "benchmark_dataset": self.benchmark,
            "published_settings": self.published,
            "modality": self.modality,
            "organ": self.organ,
            "sentences": sentences.origin if sentences else None,
            "sentences_per_class": used_per_class(sentences, self.settings) if sentences else None,
            # an explanation shows them, also where the user's file is not at hand
            "sentences_by_class": sentences_read(self.data.class_names, sentences, self.settings)
            if sentences
            else None,
        }


def how_it_was_made(facts: Mapping[str, Any]) -> list[str]:
    """Sentences for a report on the facts of an artefact that differ from the simplest case."""
    lines = []
    if facts["sentences"]:
        lines.append(sentences_line(facts["sentences"], facts["sentences_per_class"]))
    if facts["chosen"]:
        lines.append(facts["chosen"])
    if tried := facts.get("tried"):
        lines.append(mixture_line(tried))
    if facts.get("calibrated"):
        lines.append(facts["calibrated"])
    if facts["published_settings"]:
        lines.append(f"Settings: the values published for {facts['benchmark_dataset']}.")
    if (views := facts["views"]) != 1:
        how = (
            "a new random crop of each training image in every epoch"
            if views == "per-epoch"
            else f"{views} random crops of each training image"
        )
        lines.append(f"Views: {how}; of each test image, the centre crop.")
    if facts["precision"] != "float32":
        lines.append(f"Image features: computed in {facts['precision']}.")
    return lines


def plan_fit(
    request: FitRequest, data: Dataset, draw: DrawImages | None = None, listed: Unlabelled | None = None
) -> Plan:
    """Resolve a request for a dataset.

    Args:
        draw: called with (data, shots, seed) for the training images of a run, in place of the draw that the request names; a
            method that chooses values then does so by cross-validation within them, as after a realistic draw.
        listed: unlabelled images, in place of those that the request names.

    Raises:
        UserError: an unknown method, setting or recipe; a backbone without the towers that the method needs; too few images or
            classes; or sentences that cannot be used.
    """
    from biomedcoop.backbones.registry import has_text_tower
    from biomedcoop.methods import check_towers, get_method
    from biomedcoop.methods.recipes import published_for

    method = get_method(request.method)
    check_towers(method, request.backbone)
    if len(data.class_names) < 2:
        raise UserError(
            f"{data.name} has one class ({data.class_names[0]!r}), but a classifier needs at least two; "
            "add images of another class"
        )
    entry = find(data.name, data.class_names)
    benchmark = entry.name if entry else None
    modality, organ = modality_and_organ(data, request.modality, request.organ)
    settings = method.settings(request.settings, request.recipe, benchmark, modality, organ)
    views, per_epoch = _views(method, settings, request.views)
    reads = method.abilities.uses_sentences and has_text_tower(request.backbone)
    if method.abilities.uses_sentences and not reads and request.prompts != AUTO:
        raise UserError(
            f"{method.name} reads no sentences here, because the backbone has no text tower; leave --prompts out"
        )
    sentences = find_sentences(data, request.prompts, modality, organ) if reads else None
    notes = []
    if sentences is not None and sentences.chosen:
        notes.append(sentences_line(sentences.origin, used_per_class(sentences, settings)))
    shots, shots_notes = _shots(request, data, method)
    notes += shots_notes
    number = shots if isinstance(shots, int) else None
    if draw is None and request.sampling == REALISTIC:
        draw = sample_realistic
    draw_one = draw or (lambda data, number, seed: sample_few_shot(data, number, seed, request.repeat_shots)[0])
    draws = [
        draw_one(data, number, seed) if method.abilities.uses_images else np.zeros(0, dtype=np.int64)
        for seed in request.seeds
    ]
    notes += _realistic_notes(request, data, method, draws)
    refits = request.alpha is not None and _refits(request, method, draws)
    drawn = max(map(len, draws))
    draws, calibration = _for_sets(request, data, draws, refits)
    notes += _sets_notes(request, data, method, drawn, draws, calibration, refits)
    choices = choices_of(request, data, method, settings, number, draws, validation=draw is None)
    notes += dict.fromkeys(choice.note for choice in choices if choice.note)
    return Plan(
        request=request,
        data=data,
        method=method,
        settings=settings,
        benchmark=benchmark,
        modality=modality,
        organ=organ,
        sentences=sentences,
        shots=shots,
        draws=draws,
        choices=choices,
        calibration=calibration,
        refits=refits,
        published=published_for(request.recipe, method.name, benchmark),
        views=views,
        per_epoch=per_epoch,
        listed=listed or unlabelled_of(method, request.unlabelled, data.reading),
        notes=tuple(notes),
    )


MOST_REFITTED = 1000
"""Number of training images up to which a fit for each candidate class is quick enough for a prediction."""


def _refits(request: FitRequest, method: Method, draws: Sequence[Draw]) -> bool:
    """Whether the training images themselves can calibrate the sets: a closed form, and one view of each image as of a new one."""
    able = method.abilities
    alike = able.closed_form and not able.uses_unlabelled and request.views == 1
    return alike and max(map(len, draws)) <= MOST_REFITTED


def _for_sets(request: FitRequest, data: Dataset, draws: Sequence[Draw], refits: bool) -> tuple[list[Draw], list[Draw]]:
    """The images that each run learns from, and those that calibrate its prediction sets."""
    if request.alpha is None:
        return list(draws), [np.zeros(0, dtype=np.int64) for _ in draws]
    if refits:
        return list(draws), [draw[one_of_each_set(sets_of(data, draw))] for draw in draws]
    needed, by_class = images_needed(request.alpha), request.by_class
    parts = [
        set_aside(data.labels[draw], sets_of(data, draw), needed, seed, by_class)
        for draw, seed in zip(draws, request.seeds, strict=True)
    ]
    return [draw[kept] for draw, (kept, _) in zip(draws, parts, strict=True)], [
        draw[calibration] for draw, (_, calibration) in zip(draws, parts, strict=True)
    ]


def _sets_notes(
    request: FitRequest,
    data: Dataset,
    method: Method,
    drawn: int,
    draws: Sequence[Draw],
    calibration: Sequence[Draw],
    refits: bool,
) -> list[str]:
    """What the prediction sets cost and promise, or why they are all classes.

    Images that were ``drawn`` and are in neither part are related to calibration images.
    """
    if request.alpha is None:
        without = "; without --alpha there are no prediction sets, so it changes nothing"
        given = [("--score", request.score != SCORES[0]), ("--by-class", request.by_class)]
        return [f"{name} is given{without}" for name, changed in given if changed]
    needed, alpha = images_needed(request.alpha), f"{request.alpha:g}"
    n, learned = min(map(len, calibration)), min(map(len, draws))
    counts = [np.bincount(data.labels[draw], minlength=len(data.class_names)) for draw in calibration]
    fewest = int(np.min(counts))
    unit = " of each class" if request.by_class else ""
    if (fewest if request.by_class else n) < needed:
        rarest = int(np.min(counts, axis=0).argmin())
        found, remedy = (
            f"there {'is' if fewest == 1 else 'are'} {fewest} of “{data.class_names[rarest]}”",
            "more images",
        )
        if request.by_class and not refits:
            there = min(
                int((data.labels[np.concatenate(both)] == rarest).sum())
                for both in zip(draws, calibration, strict=True)
            )
            found = (
                f"at most half of a class is set aside, with {there} training images of “{data.class_names[rarest]}”"
            )
            remedy = f"at least {2 * needed} images of each class"
        elif not request.by_class:
            found = f"{n} of the {learned} training images can be used"
            if not n:
                found = f"at most half of the {learned} training images can be set aside"
        always = "this class is in every set" if request.by_class and n else "every set is all classes"
        return [
            f"Prediction sets with alpha {alpha} need {needed} calibration images{unit}, and {found}: {always}; give {remedy} "
            f"or a larger alpha"
        ]
    mix = " of each class" if request.by_class else ", drawn in the class mix of the calibration images"
    if refits:
        which = (
            f"the {n} training images" if n == learned else f"{n} of the {learned} training images, one of each group,"
        )
        return [
            f"Prediction sets: {which} calibrate them, with a fit for each candidate class; at most {alpha} of the "
            f"sets miss the true class of new images{mix}"
        ]
    unused = drawn - n - learned
    related = f" ({unused} more, of the same groups, are used for nothing)" if unused > 0 else ""
    return [
        f"Prediction sets: {n} of the {drawn} training images are set aside to calibrate them{related}, and {method.name} learns "
        f"from the other {learned}; at most {alpha} of the sets miss the true class of new images{mix}"
    ]


def _shots(request: FitRequest, data: Dataset, method: Method) -> tuple[int | str | None, list[str]]:
    """Training images per class, and a note if the request names no number."""
    if not method.abilities.uses_images:
        return None, []
    counts = data.counts("train")
    smallest, largest = int(counts.argmin()), int(counts.argmax())
    if request.shots == ALL and counts[largest] > UNEVEN * counts[smallest]:
        return ALL, [
            f"all training images are used: {counts[largest]} of class {data.class_names[largest]!r}, "
            f"{counts[smallest]} of class {data.class_names[smallest]!r}; classifiers of such images favour large classes"
        ]
    if request.shots is not None:
        return request.shots, []
    if request.sampling == REALISTIC:
        return max(1, min(DEFAULT_SHOTS, int(counts.sum()) // len(counts))), []
    count, kept = int(counts[smallest]), kept_for_validation(request, data)
    shots = max(1, min(DEFAULT_SHOTS, count - kept))
    if shots == DEFAULT_SHOTS:
        more = f"; --shots all uses all {counts.sum()}" if counts.max() > shots else ""
        return shots, [f"{shots} training images of each class are used{more}"]
    why = f" (recipe {request.recipe} keeps some for validation)" if kept else ""
    return shots, [
        f"class {data.class_names[smallest]!r} has {count} training image{'s' * (count != 1)}, so {shots} of each class "
        f"{'is' if shots == 1 else 'are'} used instead of {DEFAULT_SHOTS}{why}; --shots all takes all images of every class"
    ]


def _realistic_notes(request: FitRequest, data: Dataset, method: Method, draws: Sequence[Draw]) -> list[str]:
    """What realistic draws gave, and which classes have no image."""
    if request.sampling != REALISTIC or not method.abilities.uses_images:
        return []
    notes = []
    for seed, draw in zip(request.seeds, draws, strict=True):
        counts = np.bincount(data.labels[draw], minlength=len(data.class_names))
        of_classes = ", ".join(f"{n} of {name!r}" for name, n in zip(data.class_names, counts.tolist(), strict=True))
        notes.append(f"seed {seed}: {len(draw)} training images are drawn whatever their class: {of_classes}")
        if not counts.all():
            absent = ", ".join(repr(data.class_names[i]) for i in np.flatnonzero(counts == 0))
            what = "only words tell of it" if method.abilities.needs_text_tower else "it is never the answer"
            notes.append(
                f"seed {seed}: no training image of {absent}, so {what}; give more --shots, or leave out --sampling realistic"
            )
    return notes


def _views(method: Method, settings: Any, views: int | str) -> tuple[int, bool]:
    """Number of views of each training image, and whether each view belongs to an epoch."""
    uses_images = method.abilities.uses_images
    if method.abilities.changes_towers and views != 1:
        raise UserError(
            f"{method.name} cuts a new random crop of each image at every step, so --views does not apply; leave it out"
        )
    if isinstance(views, int):
        return (views if uses_images else 1), False
    if not uses_images:
        return 1, False
    epochs = getattr(settings, "epochs", None)
    if method.abilities.needs_all_views or epochs is None:
        reason = "uses all views of all images at once" if method.abilities.needs_all_views else "has no epochs"
        raise UserError(
            f"{method.name} {reason}, so --views per-epoch does not apply; give --views a number, or leave the method out"
        )
    if epochs > MAX_VIEWS:
        raise UserError(
            f"--views per-epoch with epochs={epochs} needs more than {MAX_VIEWS} crops per image; lower epochs"
        )
    return epochs, True
