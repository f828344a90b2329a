"""Cross-validation in place of a test split: each image is tested by a classifier that has not seen it or a related image."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from biomedcoop.backbones.base import Backbone
from biomedcoop.classifier.fit import fit_plan
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.sampling.folds import Divisions
from biomedcoop.evaluation.answers import Answers, put_together
from biomedcoop.evaluation.evaluate import own_features
from biomedcoop.progress import Progress
from biomedcoop.tasks.choice import kept_for_validation
from biomedcoop.tasks.options import ALL, REALISTIC
from biomedcoop.tasks.plan import DEFAULT_SHOTS, Plan, plan_fit
from biomedcoop.tasks.request import FitRequest


def plan_folds(request: FitRequest, data: Dataset, divisions: Divisions) -> list[Plan]:
    """The plan of each fold of each division: training on the other folds.

    Args:
        request: the request of one method.
        data: the images; each is tested once in each division.

    Raises:
        UserError: the images outside a fold cannot be used for training.
    """
    shots = shots_outside(request, data, divisions)
    plans = []
    for _, seed, tested in divisions:
        part = dataclasses.replace(data, splits=np.where(tested, "test", "train"))
        plans.append(plan_fit(dataclasses.replace(request, seeds=(seed,), shots=shots), part))
    return plans


def cross_validate(
    plans: list[Plan],
    data: Dataset,
    divisions: Divisions,
    features: npt.NDArray[np.float32],
    backbone: Backbone,
    progress: Progress | None = None,
) -> list[Answers]:
    """Answers about all images of a dataset from classifiers that were trained on the other folds.

    Args:
        plans: the plans of one method, from :func:`plan_folds`.
        data: the images; each is tested once in each division.
        features: image features of the frozen backbone, float32 [N, E].

    Returns:
        Answers about N images for each division.
    """
    stage = "cross-validating"
    classifiers = [
        classifier for joined in _joined(plans) for classifier in fit_plan(joined, backbone, progress, stage=stage)
    ]
    parts: list[list[Answers]] = [[] for _ in divisions.folds]
    places: list[list[npt.NDArray[np.bool_]]] = [[] for _ in divisions.folds]
    for classifier, (position, _, tested) in zip(classifiers, divisions, strict=True):
        own = own_features(classifier, data.select(np.flatnonzero(tested)), features[tested], progress)
        parts[position].append(Answers.of(classifier, own))
        places[position].append(tested)
    return [put_together(*one) for one in zip(parts, places, strict=True)]


def shots_outside(request: FitRequest, data: Dataset, divisions: Divisions) -> int | str:
    """Training images per class that every fold leaves; at most the number that the request names."""
    if request.shots == ALL or (request.shots is not None and request.repeat_shots):
        return request.shots
    classes = len(data.class_names)
    if request.sampling == REALISTIC:
        fewest = min(int((~tested).sum()) for _, _, tested in divisions)
        return max(1, min(int(request.shots or DEFAULT_SHOTS), fewest // classes))
    left = [int(np.bincount(data.labels[~tested], minlength=classes).min()) for _, _, tested in divisions]
    return max(1, min(int(request.shots or DEFAULT_SHOTS), min(left) - kept_for_validation(request, data)))


def _joined(plans: list[Plan]) -> list[Plan]:
    """Plans whose runs are trained together: all of them if they draw equally many images, else each alone."""
    if len({(len(plan.draws[0]), len(plan.val_draws[0])) for plan in plans}) > 1:
        return plans
    first = plans[0]
    return [
        dataclasses.replace(
            first,
            request=dataclasses.replace(
                first.request, seeds=tuple(seed for plan in plans for seed in plan.request.seeds)
            ),
            draws=[draw for plan in plans for draw in plan.draws],
            choices=[choice for plan in plans for choice in plan.choices],
            calibration=[draw for plan in plans for draw in plan.calibration],
        )
    ]
