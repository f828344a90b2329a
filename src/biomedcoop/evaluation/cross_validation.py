"""Cross-validation in place of a test split: each image is tested by a classifier that has not seen it or a related image."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from biomedcoop.backbones.base import Backbone
from biomedcoop.classifier.fit import fit_plan
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.sampling.folds import draw_folds, few_images_note, related_images, too_few_to_split
from biomedcoop.errors import UserError
from biomedcoop.progress import Progress
from biomedcoop.tasks.choice import kept_for_validation
from biomedcoop.tasks.options import ALL
from biomedcoop.tasks.plan import DEFAULT_SHOTS, Plan, plan_fit
from biomedcoop.tasks.request import FitRequest

FOLDS = 5

REPEATS = 3
"""Number of divisions if the request names one seed."""


@dataclass(frozen=True)
class Divisions:
    """Divisions of images into folds.

    Attributes:
        seeds: one random seed for each division.
        folds: fold of each of the N images, int64 [N], for each division.
    """

    seeds: tuple[int, ...]
    folds: tuple[npt.NDArray[np.int64], ...]

    @property
    def number(self) -> int:
        """Number of folds."""
        return int(self.folds[0].max()) + 1

    def __iter__(self) -> Iterator[tuple[int, int, npt.NDArray[np.bool_]]]:
        """The position of a division, its seed, and the tested images bool [N], for each fold of each division."""
        for position, (seed, fold_of) in enumerate(zip(self.seeds, self.folds, strict=True)):
            for fold in range(fold_of.max() + 1):
                yield position, seed, fold_of == fold

    def note(self, data: Dataset) -> str:
        """The note on a cross-validation of a dataset, issued before the work."""
        return (
            f"{few_images_note(data)}: {self.number}-fold cross-validation, repeated {len(self.folds)} times, tests each image "
            "with classifiers trained on the others. The saved model is trained on images of all folds."
        )


def divide(data: Dataset, seeds: Sequence[int]) -> Divisions | None:
    """Divisions of the training images for a cross-validation, if there is no test split and too few images to draw one.

    Args:
        seeds: seeds of the divisions; a single seed stands for :data:`REPEATS` of them, itself and the next ones.

    Raises:
        UserError: the images cannot be divided.
    """
    if not too_few_to_split(data):
        return None
    part = data.part("train")
    related = related_images(part)
    for label, name in enumerate(part.class_names):
        if len(set(related[part.labels == label].tolist())) < 2:
            raise UserError(
                f"class {name!r} has one image, or only images of one group (such as a patient) or copies of one image, so it "
                "cannot be both trained on and tested; add images of it, remove the class, or give a test split"
            )
    seeds = tuple(seeds) if len(seeds) > 1 else tuple(seeds[0] + k for k in range(REPEATS))
    return Divisions(seeds, tuple(draw_folds(part.labels, related, FOLDS, seed) for seed in seeds))


def cross_validate(
    request: FitRequest,
    data: Dataset,
    divisions: Divisions,
    features: npt.NDArray[np.float32],
    backbone: Backbone,
    progress: Progress | None = None,
) -> list[npt.NDArray[np.float32]]:
    """Probabilities of all images of a dataset from classifiers that were trained on the other folds.

    Args:
        request: the request of one method.
        data: the images; each is tested once in each division.
        features: image features float32 [N, E].

    Returns:
        Probabilities float32 [N, C] for each division.

    Raises:
        UserError: the images outside a fold cannot be used for training.
    """
    shots = shots_outside(request, data, divisions)
    plans = []
    for _, seed, tested in divisions:
        part = dataclasses.replace(data, splits=np.where(tested, "test", "train"))
        plans.append(plan_fit(dataclasses.replace(request, seeds=(seed,), shots=shots), part))
    classifiers = [classifier for joined in _joined(plans) for classifier in fit_plan(joined, backbone, progress)]
    found = [np.zeros((len(data), len(data.class_names)), dtype=np.float32) for _ in divisions.folds]
    for classifier, (position, _, tested) in zip(classifiers, divisions, strict=True):
        found[position][tested] = classifier.probabilities(features[tested])
    return found


def shots_outside(request: FitRequest, data: Dataset, divisions: Divisions) -> int | str:
    """Training images per class that every fold leaves; at most the number that the request names."""
    if request.shots == ALL or (request.shots is not None and request.repeat_shots):
        return request.shots
    classes = len(data.class_names)
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
        )
    ]
