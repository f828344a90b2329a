"""A learning curve from a run's own training images, and what a few more images per class would bring.

The training images of each class are divided into quarters. The method is trained on each quarter, on both halves and on all of
them, and tested on the same test images. The training on all of them is the run itself, unless its recipe would take long.
How much each doubling of the images brings is measured there, and continued by at most
one doubling: a straight line over the logarithm of the images, which is no law, and is said to be none.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from biomedcoop.classifier.classifier import Classifier
from biomedcoop.classifier.fit import fit_plan
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.sampling.few_shot import Draw
from biomedcoop.evaluation.bootstrap import LEVEL, Estimate, Floats, Groups, resampled_weights
from biomedcoop.evaluation.weighted import mean_over, ratio
from biomedcoop.evaluation.wording import count, number
from biomedcoop.methods import get_method
from biomedcoop.methods.recipes import RECIPES
from biomedcoop.progress import Progress
from biomedcoop.tasks.options import ALL
from biomedcoop.tasks.plan import plan_fit
from biomedcoop.tasks.request import FitRequest

PARTS = (4, 2, 1)
"""Numbers of parts that the training images are divided into, the smallest parts first."""

MORE = 8
"""Images per class whose gain a report states."""

MOST_STEPS = 200
"""Training steps through the text tower that a learning curve may take on one core of today."""


RESAMPLES = 300
"""Bootstrap resamples; their variance is taken, which needs fewer than a percentile."""


class NoCurve(Exception):
    """A run for which no learning curve is made; the message says why."""


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """Correct answers of classifiers that learned from fewer of the run's training images.

    Attributes:
        shots: (mean) training images per class at each size, ascending, [S].
        right: for each size, whether each of D classifiers is right on each of N test images, bool [D, N].
        labels: int64 [N] classes of the test images.
        class_names: C names.
        recipe: recipe of these classifiers.
        groups: [N] group of each test image, or None.
        ends_at_run: whether the classifier of all images is that of the run, and not another one of a quicker recipe.
    """

    shots: tuple[float, ...]
    right: tuple[npt.NDArray[np.bool_], ...]
    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    recipe: str
    groups: Groups | None = None
    ends_at_run: bool = False

    def values(self, class_name: str | None = None) -> list[Floats]:
        """For each size, the balanced accuracy of each classifier, or the sensitivity of one class, [D]."""
        return [rates[:, 0] for rates in self._rates(np.ones((len(self.labels), 1)), class_name)]

    @cached_property
    def slopes(self) -> dict[str | None, tuple[float, float, float]]:
        """What each doubling of the images brings: to each class's sensitivity, and under None to balanced accuracy.

        Returns:
            For each: the slope of the least-squares line through the means over log2(images); its variance, the sum of that over
            resampled test images and that over the parts; and the variance of a single training, pooled over the parts of a size.
        """
        x = np.log2(self.shots) - np.mean(np.log2(self.shots))
        weight = x / (x**2).sum()  # slope = Σ weight · mean
        drawn = list(resampled_weights(len(self.labels), RESAMPLES, 0, self.groups))
        found: dict[str | None, tuple[float, float, float]] = {}
        for name in (None, *self.class_names):
            values = self.values(name)
            slope = float(sum(w * v.mean() for w, v in zip(weight, values, strict=True)))
            means = [np.stack([rates.mean(axis=0) for rates in self._rates(block, name)]) for block in drawn]
            over_images = float(np.nanvar(np.concatenate([weight @ of_block for of_block in means])))
            single = float(sum(((v - v.mean()) ** 2).sum() for v in values)) / self._freedom
            over_parts = float(sum(w**2 * single / len(v) for w, v in zip(weight, values, strict=True)))
            found[name] = slope, over_images + over_parts, single
        return found

    @property
    def _freedom(self) -> int:
        """Degrees of freedom of the pooled variance."""
        return sum(len(right) - 1 for right in self.right)

    def gain(self, more: int = MORE, class_name: str | None = None) -> Estimate:
        """What ``more`` images of each class would change, if each doubling brings what it brought.

        The interval of 95 % is one of prediction: it holds the change from one training to another, so it covers the choice of the
        training images of both, and that of the test images behind the slope. Value and interval stay where they can: a share that
        is 80 % now loses at most 80 points and gains at most 20.
        """
        from scipy.special import stdtrit

        doublings = math.log2((self.shots[-1] + more) / self.shots[-1])
        slope, variance, single = self.slopes[class_name]
        if math.isnan(slope):
            return Estimate(None, None, None)
        half = float(stdtrit(self._freedom, (1 + LEVEL) / 2)) * math.sqrt(doublings**2 * variance + 2 * single)
        now, change = float(self.values(class_name)[-1].mean()), doublings * slope
        return Estimate(*(min(max(end, -now), 1 - now) for end in (change, change - half, change + half)))

    @property
    def more(self) -> int:
        """Images per class whose gain is stated: :data:`MORE`, or fewer where that would be more than a doubling."""
        return min(MORE, max(1, int(self.shots[-1])))

    def sentence(self) -> str:
        """What more images would bring, or that it cannot be told."""
        gain = self.gain(self.more)
        if gain.value is None or gain.low is None or gain.high is None:
            return "What more images would bring cannot be told from these images."
        change = f"{self.more} more images of each class would change"
        low, high = number(gain.low, signed=True), number(gain.high, signed=True)
        if gain.low <= 0 <= gain.high:
            return (
                f"What {change} is too uncertain to tell: from {low} to {high} points of balanced accuracy "
                "(95 % interval)."
            )
        by = f"{number(gain.value, signed=True)} points"
        range_ = f"95 % interval {low} to {high}"
        return (
            f"{change} balanced accuracy by about {by} ({range_}), if each doubling brings as much as the last two did."
        )

    def _rates(self, weights: Floats, class_name: str | None) -> list[Floats]:
        """For each size, balanced accuracy or the sensitivity of one class for weights [N, b]: [D, b]."""
        kept = range(len(self.class_names)) if class_name is None else [self.class_names.index(class_name)]
        masks = [self.labels == k for k in kept]
        rates = [
            [ratio(right[:, own].astype(np.float64) @ weights[own], weights[own].sum(axis=0)[None]) for own in masks]
            for right in self.right
        ]
        present = np.array([[own.any()] for own in masks])
        return [mean_over(present, np.stack(of_size)) for of_size in rates]


def learning_curve(
    request: FitRequest,
    data: Dataset,
    drawn: Draw,
    features: npt.NDArray[np.float32],
    tested: Dataset,
    classifier: Classifier,
    answers: npt.NDArray[np.int64],
    progress: Progress | None = None,
) -> LearningCurve:
    """Train on parts of the training images of a run and test each classifier; only where that is cheap.

    Args:
        request: request of the run.
        data: dataset of the run.
        drawn: its training images, positions in ``data``.
        features: image features of the test images, float32 [N, E].
        tested: the test images.
        classifier: classifier of the run's first seed.
        answers: its answers to the test images, int64 [N].

    Raises:
        NoCurve: it would take long, or the images are too few.
    """
    recipe = _cheap_recipe(request, drawn, data)
    draws = {parts: _divided(data, drawn, parts) for parts in PARTS}
    shots, right, ends_at_run = [], [], False
    for parts, of_parts in draws.items():
        seeds = tuple(range(1, parts + 1))
        by_seed = dict(zip(seeds, of_parts, strict=True))

        def draw(
            _: Dataset, __: int | None, seed: int, by_seed: dict[int, npt.NDArray[np.int64]] = by_seed
        ) -> npt.NDArray[np.int64]:
            return by_seed[seed]

        shots.append(len(of_parts[0]) / len(data.class_names))
        # neither a temperature nor sets change an answer
        part = dataclasses.replace(request, recipe=recipe, shots=ALL, seeds=seeds, calibrate="no", alpha=None)
        plan = plan_fit(part, data, draw)
        ends_at_run = parts == 1 and recipe == request.recipe and _same(plan.settings, classifier)
        if ends_at_run:
            right.append((answers == tested.labels)[None])
            continue
        found = fit_plan(plan, classifier.backbone.original, progress, stage="learning curve:")
        right.append(np.stack([c.probabilities(features).argmax(axis=1) == tested.labels for c in found]))
    labels, names, groups = tested.labels, data.class_names, tested.groups
    return LearningCurve(tuple(shots), tuple(right), labels, names, recipe, groups, ends_at_run)


def _same(settings: Any, classifier: Classifier) -> bool:
    """Whether settings are those of a classifier, which may have been read from JSON."""
    return json.dumps(dataclasses.asdict(settings)) == json.dumps(dict(classifier.settings))


def _cheap_recipe(request: FitRequest, drawn: npt.NDArray[np.int64], data: Dataset) -> str:
    """The recipe of the curve: the run's own where training needs no text tower, else "fast" if its steps are few."""
    method = get_method(request.method)
    if request.views != 1:
        raise NoCurve("the run trains on random crops, so that a learning curve would take long")
    if not method.abilities.uses_images:
        raise NoCurve(f"{request.method} learns from no image")
    if method.abilities.changes_towers:
        raise NoCurve(
            f"each training of {request.method} runs the image tower, so that a learning curve would take long"
        )
    if not _through_text(request):
        return request.recipe
    recipe = "fast" if request.method in RECIPES["fast"] and not request.settings else request.recipe
    settings = method.settings(request.settings, recipe, None)
    batch = getattr(settings, "batch_size", 1)
    steps = sum(getattr(settings, "epochs", 1) * math.ceil(len(drawn) / parts / batch) for parts in PARTS)
    if method.abilities.prompts_per_image or steps > MOST_STEPS:
        raise NoCurve(
            f"training {request.method} on parts of the images would take {steps} steps through the text tower"
        )
    return recipe


def _through_text(request: FitRequest) -> bool:
    """Whether each training step of the method runs the text tower."""
    from biomedcoop.methods.base import Method

    return type(get_method(request.method)).step_macs is not Method.step_macs


def _divided(data: Dataset, drawn: npt.NDArray[np.int64], parts: int) -> list[npt.NDArray[np.int64]]:
    """The training images in equally large parts of each class; the images of a group stay together where that is possible."""
    found: list[list[int]] = [[] for _ in range(parts)]
    for k in range(len(data.class_names)):
        own = drawn[data.labels[drawn] == k]
        if len(own) < max(PARTS):
            raise NoCurve(
                f"class “{data.class_names[k]}” has {count(len(own), 'training image')}, and a curve needs {max(PARTS)}"
            )
        if data.groups is not None:
            own = own[np.argsort(data.groups[own], kind="stable")]
        size = len(own) // parts
        for part in range(parts):
            found[part] += own[part * size : (part + 1) * size if parts > 1 else len(own)].tolist()
    return [np.array(part, dtype=np.int64) for part in found]
