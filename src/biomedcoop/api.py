"""The public functions: fit, train, evaluate, check the sentences. They build a request and pass it on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from biomedcoop.classifier.classifier import Classifier
from biomedcoop.classifier.fit import fit_plan, load_for
from biomedcoop.data.dataset import Dataset, check_dataset
from biomedcoop.errors import UserError, notify
from biomedcoop.evaluation.check_prompts import check_prompts
from biomedcoop.evaluation.evaluate import evaluate, predict_dataset
from biomedcoop.progress import Progress
from biomedcoop.runs import train_run
from biomedcoop.tasks.plan import plan_fit
from biomedcoop.tasks.request import FitOptions, FitRequest, TrainOptions, TrainRequest

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from biomedcoop.backbones.base import Backbone
    from biomedcoop.report.run import RunReport

__all__ = ["check_prompts", "evaluate", "fit", "fit_runs", "predict_dataset", "train"]


def fit(
    data: Dataset,
    method: str = "biomedcoop",
    backbone: Backbone | str | os.PathLike[str] = "mini",
    shots: int = 16,
    seed: int = 1,
    *,
    progress: Progress | None = None,
    **options: Unpack[FitOptions],
) -> Classifier:
    """Train a classifier on ``shots`` images per class.

    Only images of the training split are read. What a user should know before the work starts is said in warnings of the category
    :class:`biomedcoop.errors.Note`.

    Args:
        data: what :func:`biomedcoop.load_dataset` returns.
        method, backbone, shots, options: see :class:`biomedcoop.tasks.request.FitRequest`.
        seed: draws the training images and orders the batches.
        progress: told how far the work is.

    Raises:
        UserError: anything that cannot be used, before long work starts.
        ImageError: a training image cannot be read.

    >>> import biomedcoop as bc
    >>> data = bc.load_dataset("simulated:breast-ultrasound?train=4&val=1&test=2")
    >>> classifier = bc.fit(data, method="tip-adapter", shots=2)
    >>> classifier.class_names
    ('benign tumor', 'malignant tumor', 'normal scan')
    """
    given = {"data": data, "method": method, "backbone": backbone, "shots": shots, "seed": seed, **options}
    return _fitted(given, True, progress)[0]


def fit_runs(
    data: Dataset,
    method: str = "biomedcoop",
    backbone: Backbone | str | os.PathLike[str] = "mini",
    shots: int = 16,
    seeds: Sequence[int] = (1, 2, 3),
    *,
    progress: Progress | None = None,
    **options: Unpack[FitOptions],
) -> list[Classifier]:
    """One classifier per seed, all trained in one pass of the text encoder; otherwise as :func:`fit`."""
    given = {"data": data, "method": method, "backbone": backbone, "shots": shots, "seeds": seeds, **options}
    return _fitted(given, False, progress)


def _fitted(given: dict[str, Any], one_seed: bool, progress: Progress | None) -> list[Classifier]:
    data = check_dataset(given["data"])
    request = FitRequest.of(given, one_seed)
    plan = plan_fit(request, data)
    backbone = load_for(request.backbone, request.device, request.precision)
    notify(plan.notes_with(backbone))
    return fit_plan(plan, backbone, progress, say=True)


def train(
    source: str | os.PathLike[str] | TrainRequest,
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    **options: Unpack[TrainOptions],
) -> RunReport:
    """The main job, as ``biomedcoop train``: read the data, train, test, compare, and write the run folder.

    The folder holds ``model/`` (the artefact), ``metrics.json``, ``report.md``, ``confusion.png``, ``split.json`` (all images by
    split), ``run.json`` (the request, which can be run again) and, if a method learns from images, ``few_shot.json`` (those that
    were drawn). It appears whole, at the end, or not at all. Before the long work, warnings say what there is to know about the
    data: how they were read, and what the test images share with the training images.

    Args:
        source: path or name of the data, see :func:`biomedcoop.load_dataset`; or a request, e.g. that of an earlier run's
            ``run.json`` (``TrainRequest.read``).
        out: the run folder.
        overwrite: replace an earlier run folder.
        progress: told how far the work is.
        options: see :class:`biomedcoop.tasks.request.TrainRequest`.

    Raises:
        UserError, ImageError: see :func:`fit`.
    """
    if isinstance(source, TrainRequest):
        if options:
            raise UserError("a request says everything; give single options to TrainRequest.read, or none")
        request = source
    elif isinstance(source, (str, os.PathLike)):
        request = TrainRequest.of({"data": source, **options})
    else:
        raise UserError(
            f"source must be a path or a name, not {type(source).__name__}; with a dataset in hand, use fit and evaluate"
        )
    return train_run(request, out, overwrite=overwrite, progress=progress)
