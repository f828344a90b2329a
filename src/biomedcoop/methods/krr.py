"""Kernel ridge regression on what zero-shot leaves unexplained, with an exact leave-one-out to choose its values.

With unit-norm features f, class embeddings t, one-hot labels Y of the N training images, and K the kernel between these images:

    k(f, g) = exp(−β (1 − f · g));   scores = b f · tᵀ + k (K + λ I)⁻¹ (Y − b F tᵀ);   logits = 8 · scores

The scores aim at 1 for the right class and 0 for the others. Their base is the raw cosine times b, not a probability: on validation
images of eleven datasets, residuals of probabilities gave fewer right answers. The factor 8 makes the softmax of the scores likely.

β, λ and b are those with the smallest squared error when each training image is left out. With G = (K + λ I)⁻¹ and R = Y − b F tᵀ,
the residual of a left-out image is (G R)_i / G_ii, or G_BB⁻¹ (G R)_B for a block B of rows that are left out together: the views
of an image, an image that was drawn more than once, the images of a group (Wahba 1990, Spline Models for Observational Data,
section 4.2). An image whose class has no other image does not count. Where no image counts, defaults are taken.

The form "proker" is the published ProKeR (Bendou et al., CVPR 2025, arXiv 2501.11175), whose correction is λ times that of the
ridge, with b = 1; its paper chooses β and λ on validation images. The form "breg" also multiplies the correction by
(T Tᵀ + γ I)⁻¹ T Tᵀ, with the class embeddings T [C, E].

A class without a training image has the target 0 on all of them, so its score falls near them and stays b f · t far from them. The
artefact holds features of the training images; someone who has an image can recognise it by its features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from biomedcoop.backbones.base import Backbone
from biomedcoop.errors import UserError
from biomedcoop.lazy import F, torch
from biomedcoop.methods.base import Abilities, Method, Progress, State, Task, register
from biomedcoop.methods.class_embeddings import template_embeddings, text_state
from biomedcoop.methods.settings import class_template, setting

if TYPE_CHECKING:
    from torch import Tensor

MOST_ROWS = 10_000
"""Largest number of training rows; the kernel of so many takes 0.8 GB."""

SHARPNESS = 8.0
"""Factor of the scores in the softmax, with the smallest log loss on validation images at 1, 4 and 16 images per class."""


class Values(NamedTuple):
    """What is chosen: β, λ and b."""

    beta: float
    penalty: float
    base: float


DEFAULT = Values(1.0, 0.3, 1.0)
"""The best single choice for all datasets together at 1, 4 and 16 images per class."""

CANDIDATES = tuple(map(Values._make, product((1.0, 0.3, 3.0), (0.3, 0.1, 1.0), (1.0, 0.5, 2.0))))
"""Values to choose from; the first wins a tie."""


def published_grid() -> tuple[Values, ...]:
    """The published grid of ProKeR, in its order."""
    betas, penalties = torch.linspace(0.5, 3, 20).tolist(), torch.linspace(0.001, 1, 10).tolist()
    return tuple(Values(beta, penalty, 1.0) for beta in betas for penalty in penalties)


@dataclass(frozen=True)
class KRRSettings:
    """Settings of the text side, of the form, and values in place of chosen ones."""

    template: str = class_template("text of each class")
    form: str = setting(
        "proker", "a published form, or ridge: kernel ridge regression as it is", choices=("ridge", "proker", "breg")
    )
    beta: float = setting(0.0, "β, sharpness of the kernel; 0 to choose it", least=0, most=1000)
    penalty: float = setting(0.0, "λ, penalty of the regression; 0 to choose it", least=0, most=1000)
    base: float = setting(0.0, "b, weight of the cosines in form ridge; 0 to choose it", least=0, most=1000)
    gamma: float = setting(0.1, "γ, penalty of the class embeddings in form breg", above=0)


@register
class KRR(Method):
    name = "krr"
    title = "Kernel ridge"
    paper = "Bendou et al. 2025, arXiv 2501.11175"
    settings_type = KRRSettings
    abilities = Abilities(
        uses_images=True,
        needs_all_views=True,
        closed_form=True,
        chooses="β, λ and b",
        otherwise="β = {:g}, λ = {:g} and b = {:g}".format(*DEFAULT),
        leaves_one_out=True,
    )
    parameters = "coefficients: N × C"
    learned = ("coefficients",)

    def fit(
        self, task: Task, settings: KRRSettings, seeds: Sequence[int], progress: Progress | None = None
    ) -> list[State]:
        rows = task.labels.shape[1]
        if rows > MOST_ROWS:
            raise UserError(
                f"krr takes at most {MOST_ROWS} training images or views, not {rows}; lower --shots or --views"
            )
        text = template_embeddings(task.backbone, task.class_names, settings.template)
        states = []
        for run in range(len(seeds)):
            keys, coefficients, values = fitted(task, run, text.cpu().double(), settings)
            of_run = {name: torch.tensor(value) for name, value in values._asdict().items()}
            tensors = {"keys": keys.float(), "coefficients": coefficients.float(), **of_run}
            states.append(text_state(task.backbone, text, **tensors))
            if progress is not None:
                progress(run + 1, len(seeds), f"λ {values.penalty:g}")
        return states

    def logits(self, state: State, features: Tensor, backbone: Backbone) -> Tensor:
        f = F.normalize(features, dim=-1)
        kernel = kernel_of(f @ state["keys"].T, state["beta"])
        return SHARPNESS * (state["base"] * f @ state["class_embeddings"].T + kernel @ state["coefficients"])


def kernel_of(cosines: Tensor, beta: float | Tensor) -> Tensor:
    """Kernel of images by their cosines."""
    return (-beta * (1 - cosines)).exp()


class Regression:
    """The regression of one run for all β, λ and b, in float64.

    Args:
        f: unit-norm features [N, E] of the training rows.
        labels: int64 [N].
        text: class embeddings [C, E].
    """

    def __init__(self, f: Tensor, labels: Tensor, text: Tensor, settings: KRRSettings) -> None:
        self.f, self.text, self.between = f, text, f @ f.T
        self.one_hot = F.one_hot(labels, len(text)).to(f.dtype)  # [N, C]
        self.cosines = f @ text.T  # [N, C]
        self.published = settings.form != "ridge"
        self.turn = torch.eye(len(text), dtype=f.dtype)  # [C, C]
        if settings.form == "breg":
            gram = text @ text.T
            self.turn = torch.linalg.solve(gram + settings.gamma * self.turn, gram)
        self.latest: tuple[float, float] = (0.0, 0.0)
        self.latest_inverse = self.turn

    def inverse(self, values: Values) -> Tensor:
        """(K + λ I)⁻¹ [N, N]; the latest is kept, because values that differ in b alone share it."""
        if self.latest != (values.beta, values.penalty):
            kernel = kernel_of(self.between, values.beta)
            kernel.diagonal().add_(values.penalty)
            self.latest_inverse = torch.cholesky_inverse(torch.linalg.cholesky(kernel))
            self.latest = values.beta, values.penalty
        return self.latest_inverse

    def corrected(self, correction: Tensor, penalty: float) -> Tensor:
        """A correction [..., C] of the ridge in the form that the settings ask for."""
        return (penalty if self.published else 1.0) * correction @ self.turn

    def coefficients(self, values: Values) -> Tensor:
        """Coefficients [N, C] of the kernel."""
        residual = self.one_hot - values.base * self.cosines
        return self.corrected(self.inverse(values) @ residual, values.penalty)

    def scores(self, f: Tensor, values: Values) -> Tensor:
        """Scores [V, C] of other unit-norm features [V, E]."""
        return values.base * f @ self.text.T + kernel_of(f @ self.f.T, values.beta) @ self.coefficients(values)

    def left_out_errors(self, values: Values, blocks: Sequence[Tensor]) -> Tensor:
        """Squared error [N] of each row when its block is left out.

        Args:
            blocks: rows of the blocks of equal size, int64 [blocks, size], for each size.
        """
        inverse, residual = self.inverse(values), self.one_hot - values.base * self.cosines
        weighted, left = inverse @ residual, torch.empty_like(residual)
        for rows in blocks:
            left[rows] = torch.linalg.solve(inverse[rows[:, :, None], rows[:, None]], weighted[rows])
        return (residual - self.corrected(residual - left, values.penalty)).square().sum(1)


def fitted(task: Task, run: int, text: Tensor, settings: KRRSettings) -> tuple[Tensor, Tensor, Values]:
    """Keys [N, E], coefficients [N, C] and values of one run."""
    f, labels = F.normalize(task.features[run].cpu().double(), dim=-1), task.labels[run].cpu()
    regression = Regression(f, labels, text, settings)
    values = chosen_values(regression, task, run, settings)
    return f, regression.coefficients(values), values


def chosen_values(regression: Regression, task: Task, run: int, settings: KRRSettings) -> Values:
    """The values with the most right answers on validation images, the first in a tie; without them, those with the smallest error
    when training images are left out; else :data:`DEFAULT`. A value of the settings stays as it is."""
    given = Values(settings.beta, settings.penalty, 1.0 if regression.published else settings.base)

    def completed(values: Values) -> Values:
        return Values(*(fixed or free for fixed, free in zip(given, values, strict=True)))

    grid = list(dict.fromkeys(map(completed, published_grid() if regression.published else CANDIDATES)))
    if task.val_features is not None and task.val_labels is not None:
        f, labels = F.normalize(task.val_features[run].cpu().double(), dim=-1), task.val_labels[run].cpu()
        return max(grid, key=lambda values: int((regression.scores(f, values).argmax(1) == labels).sum()))
    block_of = blocks_of(task, run)
    counts = others_of_class(regression.one_hot, block_of)
    if len(grid) == 1 or not counts.any():
        return completed(DEFAULT)
    blocks = equal_blocks(block_of)
    return min(grid, key=lambda values: float(regression.left_out_errors(values, blocks)[counts].mean()))


def blocks_of(task: Task, run: int) -> Tensor:
    """Number of the block of each row, int64 [N·V]: the task's folds, else equal images are one block."""
    if task.folds is not None:
        block = task.folds[run].cpu()
    else:
        images = task.features[run].cpu().reshape(task.n_images, -1)
        block = torch.unique(images, dim=0, return_inverse=True)[1]
    return block.repeat_interleave(task.views)


def others_of_class(one_hot: Tensor, block_of: Tensor) -> Tensor:
    """Whether the class of each row has rows in other blocks, bool [N]."""
    of_block = one_hot.new_zeros(int(block_of.max()) + 1, one_hot.shape[1]).index_add_(0, block_of, one_hot)
    return ((one_hot.sum(0) - of_block[block_of]) * one_hot).sum(1) > 0


def equal_blocks(block_of: Tensor) -> list[Tensor]:
    """The rows of each block, int64 [blocks, size], for each size."""
    sizes = torch.bincount(block_of).tolist()
    blocks = torch.split(torch.argsort(block_of, stable=True), sizes)
    return [torch.stack([rows for rows in blocks if len(rows) == size]) for size in sorted({*sizes} - {0})]
