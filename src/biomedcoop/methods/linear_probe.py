"""Linear probe (CLIP, Radford et al. 2021, arXiv 2103.00020, section 3.2): logistic regression on unit-norm image features.

As published, a search on validation images sets the strength of the L2 penalty: first seven powers of ten, then a bisection around
the best. A cross-validation within the training images compares nine strengths. The method uses no text.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from biomedcoop.backbones.base import Backbone
from biomedcoop.data.images.crops import Crops
from biomedcoop.lazy import F, torch
from biomedcoop.methods.base import Abilities, Method, Progress, State, Task, register
from biomedcoop.methods.settings import setting
from biomedcoop.methods.validation import validations

if TYPE_CHECKING:
    from torch import Tensor

GRID = (1e6, 1e4, 1e2, 1.0, 1e-2, 1e-4, 1e-6)
"""Inverse penalties C of the first published search."""

CANDIDATES = (10.0, 30.0, 3.0, 100.0, 1.0, 0.3, 0.1, 1e3, 0.01)
"""Inverse penalties C of a cross-validation; the first, the best for all datasets together, is the default, and wins a tie."""


NEVER = -1e4
"""Bias of a class without a training image, which a realistic draw may leave out: its probability is 0."""


@dataclass(frozen=True)
class LinearProbeSettings:
    """Settings of the search for the penalty and of the solver."""

    bisections: int = setting(8, "steps of the published search around the best of its first seven penalties", least=0)
    max_iter: int = setting(1000, "maximum number of iterations of the L-BFGS solver", least=1)


@register
class LinearProbe(Method):
    name = "linear-probe"
    title = "Linear probe"
    paper = "Radford et al. 2021, arXiv 2103.00020"
    settings_type = LinearProbeSettings
    abilities = Abilities(
        uses_images=True,
        needs_all_views=True,
        needs_text_tower=False,
        chooses="C",
        otherwise=f"C = {CANDIDATES[0]:g}",
    )
    parameters = "weights: C × (E + 1)"
    learned = ("weight", "bias")
    crops: ClassVar[Crops] = Crops(smallest=0.5, flip=0.5)

    def fit(
        self, task: Task, settings: LinearProbeSettings, seeds: Sequence[int], progress: Progress | None = None
    ) -> list[State]:
        import sklearn.linear_model  # noqa: F401  (its BLAS has to be loaded to be found)
        from threadpoolctl import ThreadpoolController

        blas = ThreadpoolController()
        states: list[State] = []
        for run, own in enumerate(zip(task.features, task.labels, strict=True)):
            # on a busy machine, BLAS threads that wait for each other would slow down such small products
            with blas.limit(limits=1, user_api="blas"):
                c = chosen_penalty(task, run, settings)
                weight, bias = fitted(*as_arrays(*own), len(task.class_names), c, settings.max_iter)
            states.append({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias), "c": torch.tensor(c)})
            if progress is not None:
                progress(run + 1, len(seeds), f"C {c:.3g}")
        return states

    def logits(self, state: State, features: Tensor, backbone: Backbone) -> Tensor:
        return F.normalize(features, dim=-1) @ state["weight"].T + state["bias"]


def chosen_penalty(task: Task, run: int, settings: LinearProbeSettings) -> float:
    """The inverse penalty C of a run: from the published search on validation images, else the best of :data:`CANDIDATES`."""
    fits = [
        (as_arrays(part.task.features[0], part.task.labels[0]), as_arrays(part.features[0], part.labels[0]))
        for part in validations(task, run)
    ]
    total = sum(len(labels) for _, (_, labels) in fits)

    @cache
    def accuracy(c: float) -> float:
        models = (logistic_regression(*train, c, settings.max_iter) for train, _ in fits)
        return sum(int((m.predict(f) == y).sum()) for m, (_, (f, y)) in zip(models, fits, strict=True)) / total

    if task.val_features is not None:
        return search(accuracy, settings.bisections)
    return max(CANDIDATES, key=accuracy) if fits else CANDIDATES[0]


def as_arrays(features: Tensor, labels: Tensor) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Unit-norm features [N, E] and labels [N] for scikit-learn."""
    return F.normalize(features, dim=-1).cpu().numpy(), labels.cpu().numpy()


def logistic_regression(features: npt.NDArray[Any], labels: npt.NDArray[Any], c: float, max_iter: int) -> Any:
    """Fitted scikit-learn model of features [N, E] with inverse penalty ``c``."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        # with a weak penalty the solver may stop at max_iter, as published; the validation images judge the result
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=c, max_iter=max_iter).fit(features, labels)


def fitted(
    features: npt.NDArray[Any], labels: npt.NDArray[Any], classes: int, c: float, max_iter: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Weights [C, E] and biases [C] for a softmax; a class without an image is never the answer."""
    present = np.unique(labels)
    weight = np.zeros((classes, features.shape[1]), dtype=np.float32)
    bias = np.full(classes, NEVER, dtype=np.float32)
    bias[present] = 0
    if len(present) > 1:
        model = logistic_regression(features, labels, c, max_iter)
        weight[present], bias[present] = softmax_form(model.coef_, model.intercept_)
    return weight, bias


def softmax_form(coef: npt.NDArray[Any], intercept: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Weights [C, E] and biases [C] for a softmax with the model's probabilities; scikit-learn keeps one row for two classes."""
    if len(coef) == 1:
        coef, intercept = (np.concatenate([np.zeros_like(x), x]) for x in (coef, intercept))
    return np.ascontiguousarray(coef, dtype=np.float32), np.ascontiguousarray(intercept, dtype=np.float32)


def search(accuracy: Callable[[float], float], bisections: int) -> float:
    """The inverse penalty C with the best accuracy on validation images.

    The search takes the best value of :data:`GRID`, then bisects the logarithm of C between C/10 and 10·C. In a tie, the first
    value of the grid and the smaller end of the interval win.
    """
    accuracies = [accuracy(c) for c in GRID]
    best = GRID[int(np.argmax(accuracies))]
    low, high = best / 10, best * 10
    for _ in range(bisections):
        middle = 10 ** (0.5 * (np.log10(low) + np.log10(high)))
        if accuracy(low) >= accuracy(high):
            best, high = low, middle
        else:
            best, low = high, middle
    return float(best)
