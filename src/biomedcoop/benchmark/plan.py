"""The grid of a protocol: groups of runs, and the plan of each group.

A group is a dataset, a backbone, a row and a number of shots, with all seeds. Its runs train together, so that a group is the
smallest thing that is scheduled or continued. What a group computes depends on nothing but the protocol and the data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from biomedcoop.benchmark.protocol import Protocol
from biomedcoop.benchmark.protocol_keys import Row
from biomedcoop.benchmark.sources import Source, read_source, test_positions
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.sampling.few_shot import base_novel_classes, sample_realistic
from biomedcoop.errors import UserError
from biomedcoop.evaluation.bootstrap import resampling_units
from biomedcoop.methods import Method, get_method
from biomedcoop.prompts import Sentences
from biomedcoop.tasks.plan import Plan, plan_fit
from biomedcoop.tasks.request import FitRequest
from biomedcoop.tasks.sentences import find_sentences
from biomedcoop.tasks.unlabelled import training_images

FEWEST_CLASSES = 4
"""Minimum number of classes for base-to-novel: a single novel class would always be answered rightly."""

BASE, NOVEL = "base", "novel"


@dataclass(frozen=True)
class Group:
    """Runs that train together: all seeds of one setting.

    Attributes:
        dataset: as in the protocol.
        name: short name of the dataset.
        backbone: as in the protocol.
        shots: 0 for a method that learns from no image; it has one seed.
    """

    kind: str
    dataset: str
    name: str
    backbone: str
    row: Row
    recipe: str
    shots: int
    seeds: tuple[int, ...]

    @property
    def id(self) -> str:
        """The start of the names of its runs."""
        return f"{self.kind}/{self.name}/{backbone_name(self.backbone)}/{self.row.name}/{self.shots}"

    @property
    def runs(self) -> list[str]:
        """The name of each run."""
        return [f"{self.id}/{seed}" for seed in self.seeds]

    @property
    def method(self) -> Method:
        return get_method(self.row.method)

    def lines(self, status: str, values: Sequence[Mapping[str, Any]] = (), reason: str = "") -> list[dict[str, Any]]:
        """The line of each run in the results.

        Args:
            status: "done", "failed" or "skipped".
            values: what was measured in each run; empty for none.
            reason: why a run failed or was skipped; empty for one that is done.
        """
        about = {
            "dataset": self.name,
            "backbone": backbone_name(self.backbone),
            "method": self.row.method,
            "variant": self.row.variant,
            "recipe": self.recipe,
            "shots": self.shots,
            "status": status,
        }
        why = {"reason": " ".join(reason.split())} if reason else {}
        measured = values or [{}] * len(self.seeds)
        return [
            {"run": run, **about, "seed": seed, **why, **own}
            for run, seed, own in zip(self.runs, self.seeds, measured, strict=True)
        ]


def backbone_name(backbone: str) -> str:
    """The name of a backbone in results: the name itself, or that of its folder."""
    return Path(backbone).absolute().name


def groups_of(protocol: Protocol, sources: Mapping[str, Source]) -> Iterator[Group]:
    """The groups of a protocol, by dataset, backbone, row and shots."""
    for dataset in protocol.datasets:
        for backbone in protocol.backbones:
            for row in protocol.rows:
                learns = get_method(row.method).abilities.uses_images
                recipe = protocol.recipe_of(row.method)
                for shots in protocol.shots if learns else (0,):
                    seeds = protocol.seeds if learns else protocol.seeds[:1]
                    name = sources[dataset].name
                    yield Group(protocol.kind, dataset, name, backbone, row, recipe, shots, seeds)


def plan_group(protocol: Protocol, group: Group, data: Dataset) -> Plan:
    """The plan of a group on all classes of a dataset: settings, sentences and the images of each run.

    Raises:
        UserError: the method cannot do the protocol on this dataset, for instance with too few images.
    """
    method = group.method
    if protocol.kind == "base-to-novel":
        if (count := len(data.class_names)) < FEWEST_CLASSES:
            raise UserError(f"{group.name} has {count} classes; base-to-novel needs at least {FEWEST_CLASSES}")
        if not method.abilities.retargets:
            raise UserError(f"{method.name} cannot take new classes, because it learns classes from images")
    if group.shots and protocol.kind != "realistic":
        _check_shots(group, data)
    request = FitRequest(
        data=data,
        method=method.name,
        shots=group.shots or None,
        seeds=group.seeds,
        recipe=group.recipe,
        settings=group.row.settings,
        prompts=protocol.prompts if method.abilities.uses_sentences else "auto",
    )
    draw = sample_realistic if protocol.kind == "realistic" else None
    plan = plan_fit(request, data, draw, training_images(data) if method.abilities.uses_unlabelled else None)
    if plan.listed is not None and not len(np.setdiff1d(data.indices("train"), plan.drawn)):
        raise UserError(
            f"{method.name} takes training images that no run draws as its unlabelled images, and every one is drawn; "
            "lower shots (in the protocol, or with --shots) or add images"
        )
    return plan if plan.sentences is None else dataclasses.replace(plan, sentences=sentences_of(protocol, data))


def _check_shots(group: Group, data: Dataset) -> None:
    """Refuse a class with fewer training images than shots: a benchmark does not repeat images."""
    counts = data.counts("train")
    label = int(np.argmin(counts))
    if (count := int(counts[label])) < group.shots:
        raise UserError(
            f"class {data.class_names[label]!r} has {count} image{'s' * (count != 1)} in train, fewer than {group.shots} shots; "
            "lower shots (in the protocol, or with --shots) or add images"
        )


def trained_part(protocol: Protocol, plan: Plan) -> Plan:
    """The part of a plan that is trained: that of the base classes, or all of it. The images were drawn before, as published."""
    if protocol.kind != "base-to-novel":
        return plan
    return plan.of_classes(base_novel_classes(len(plan.data.class_names))[0])


@dataclass(frozen=True)
class TestSet:
    """Images that a classifier is scored on.

    Attributes:
        key: its name in the results: that of the dataset and, in base-to-novel, "base" or "novel".
        dataset: as in the protocol.
        data: the whole dataset.
        classes: labels of the scored classes; ``classes[i]`` is class i of the test.
        positions: positions of the images in ``data``, int64 [N].
    """

    key: str
    dataset: str
    data: Dataset
    classes: tuple[int, ...]
    positions: npt.NDArray[np.int64]

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.data.class_names[label] for label in self.classes)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Class of each image, int64 [N]."""
        place = np.zeros(len(self.data.class_names), dtype=np.int64)
        place[list(self.classes)] = np.arange(len(self.classes))
        return np.asarray(place[self.data.labels[self.positions]], dtype=np.int64)

    @property
    def file(self) -> str:
        """Name of the file that describes it."""
        return self.key.replace(" ", "-") + ".json"

    def to_dict(self) -> dict[str, Any]:
        """What the statistics need of it: class names, labels, and a number for each set of related images."""
        groups = None if self.data.groups is None else self.data.groups[self.positions]
        return {
            "name": self.key,
            "classes": list(self.class_names),
            "labels": self.labels.tolist(),
            "groups": resampling_units(len(self.positions), groups).tolist(),
        }


def test_sets(protocol: Protocol, sources: Mapping[str, Source], dataset: str) -> list[TestSet]:
    """What classifiers trained on a dataset are scored on, without datasets that cannot be used."""
    found = []
    for name in protocol.tested_on(dataset):
        source = sources[name]
        if source.place is None:
            continue
        data = read_source(source.place, source.trained)
        every, tested = tuple(range(len(data.class_names))), test_positions(data)
        if protocol.kind != "base-to-novel":
            found.append(TestSet(source.name, name, data, every, tested))
            continue
        for part, classes in zip((BASE, NOVEL), base_novel_classes(len(every)), strict=True):
            own = tested[np.isin(data.labels[tested], classes)]
            found.append(TestSet(f"{source.name} {part}", name, data, tuple(classes), own))
    return found


def sentences_of(protocol: Protocol, data: Dataset) -> Sentences:
    """The sentences of every class of a dataset, as the protocol wants them."""
    found = find_sentences(data, protocol.prompts)
    return unused(found) if protocol.unused_sentences else found


def unused(sentences: Sentences) -> Sentences:
    """The sentences of the library that the shipped backbone was not trained with: those at odd positions; others as they are."""
    if not sentences.source.startswith("library:"):
        return sentences
    return dataclasses.replace(sentences, by_class=tuple(texts[1::2] for texts in sentences.by_class))
