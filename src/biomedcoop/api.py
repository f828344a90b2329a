"""The public functions: fit, train, evaluate, benchmark, check the sentences. Each builds a request and passes it on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from biomedcoop.benchmark.runner import run_benchmark
from biomedcoop.classifier.classifier import Classifier
from biomedcoop.classifier.fit import fit_notes, fit_plan, load_for
from biomedcoop.data.dataset import Dataset, check_dataset
from biomedcoop.display import shown
from biomedcoop.errors import UserError, notify
from biomedcoop.evaluation.check_prompts import check_prompts
from biomedcoop.evaluation.evaluate import evaluate, predict_dataset
from biomedcoop.evaluation_run import compare
from biomedcoop.progress import ProgressOption
from biomedcoop.runs import train_run
from biomedcoop.tasks.plan import plan_fit
from biomedcoop.tasks.request import FitOptions, FitRequest, TrainOptions, TrainRequest

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from biomedcoop.backbones.base import Backbone
    from biomedcoop.report.run import RunReport

__all__ = ["check_prompts", "compare", "evaluate", "fit", "fit_runs", "predict_dataset", "run_benchmark", "train"]


def fit(
    data: Dataset,
    method: str = "auto",
    backbone: Backbone | str | os.PathLike[str] = "mini",
    shots: int | str | None = None,
    seed: int = 1,
    *,
    progress: ProgressOption = None,
    **options: Unpack[FitOptions],
) -> Classifier:
    """Train a classifier on a few images per class.

    Only images of the training split are read. Warnings (:class:`biomedcoop.errors.Note`) tell of anything unusual before the work.

    Args:
        data: a dataset from :func:`biomedcoop.load_dataset`.
        method, backbone, shots, options: see :class:`biomedcoop.tasks.request.FitRequest`.
        seed: random seed that draws the training images and orders the batches.
        progress: None shows work of more than two seconds on stderr, False nothing; a function gets (stage, units done, in total).

    Returns:
        The fitted classifier: it predicts, saves itself, and holds the facts of its training.

    Raises:
        UserError: an argument or the data cannot be used; raised before long work starts.
        ImageError: a training image cannot be read.

    Example:
        >>> import biomedcoop as bc
        >>> data = bc.load_dataset("simulated:breast-ultrasound?train=4&val=1&test=2")
        >>> classifier = bc.fit(data, method="tip-adapter", shots=2)
        >>> classifier.class_names
        ('benign tumor', 'malignant tumor', 'normal scan')
    """
    arguments = {"data": data, "method": method, "backbone": backbone, "shots": shots, "seed": seed, **options}
    return _fitted(arguments, progress)[0]


def fit_runs(
    data: Dataset,
    method: str = "auto",
    backbone: Backbone | str | os.PathLike[str] = "mini",
    shots: int | str | None = None,
    seeds: Sequence[int] = (1, 2, 3),
    *,
    progress: ProgressOption = None,
    **options: Unpack[FitOptions],
) -> list[Classifier]:
    """Train one classifier per seed; all of them share each pass of the text encoder.

    Args and errors are those of :func:`fit`, except that ``seeds`` is a list.

    Returns:
        A classifier for each seed, in the order of ``seeds``.

    Example:
        >>> import biomedcoop as bc
        >>> data = bc.load_dataset("simulated:breast-ultrasound?train=4&val=1&test=2")
        >>> classifiers = bc.fit_runs(data, method="tip-adapter", shots=2, seeds=[1, 2])
        >>> [classifier.facts["seed"] for classifier in classifiers]
        [1, 2]
    """
    arguments = {"data": data, "method": method, "backbone": backbone, "shots": shots, "seeds": seeds, **options}
    return _fitted(arguments, progress)


def _fitted(arguments: dict[str, Any], progress: ProgressOption) -> list[Classifier]:
    data = check_dataset(arguments["data"])
    request = FitRequest.of(arguments)
    plan = plan_fit(request, data)
    backbone = load_for(request.backbone, request.device, request.precision)
    notify(fit_notes(plan, backbone))
    with shown(progress) as tell:
        return fit_plan(plan, backbone, tell, say=True)


def train(
    source: str | os.PathLike[str] | TrainRequest,
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    html: bool = True,
    progress: ProgressOption = None,
    **options: Unpack[TrainOptions],
) -> RunReport:
    """Read the data, train, test, compare, and write the run folder; the same as ``biomedcoop train``.

    The run folder holds ``model/`` (the artefact), ``metrics.json``, ``report.html``, its summary ``report.md``,
    ``confusion.png``, ``predictions.csv`` (a row per test image), ``split.json`` (all images by split), ``run.json`` (the request,
    which can be run again) and, if a method learns from images, ``few_shot.json`` (the images that were drawn). It appears when
    the run is complete; ``report.html`` follows last. Before long work starts, warnings tell how the data were read, and which
    test images or groups are also in the training data.

    Args:
        source: path or name of the data (:func:`biomedcoop.load_dataset`), or a request (``TrainRequest.read("run.json")``).
        out: run folder to write.
        overwrite: replace an earlier run folder.
        html: write ``report.html`` (:func:`biomedcoop.write_html` can later).
        progress: see :func:`fit`.
        options: see :class:`biomedcoop.tasks.request.TrainRequest`.

    Raises:
        UserError, ImageError: see :func:`fit`.

    Example:
        >>> import tempfile
        >>> import biomedcoop as bc
        >>> data = "simulated:breast-ultrasound?train=4&val=1&test=2"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = bc.train(data, f"{folder}/run", method="tip-adapter", shots=2, n_bootstrap=40)
        >>> list(report.rows)
        ['tip-adapter', 'zero-shot', 'majority class']
    """
    if isinstance(source, TrainRequest):
        if options:
            raise UserError("a request already holds all options; give single options to TrainRequest.read instead")
        request = source
    elif isinstance(source, (str, os.PathLike)):
        request = TrainRequest.of({"data": source, **options})
    else:
        raise UserError(
            f"source must be a path or a name, not {type(source).__name__}; for a loaded dataset, use fit and evaluate"
        )
    with shown(progress) as tell:
        return train_run(request, out, overwrite=overwrite, html=html, progress=tell)
