"""GDA (Wang et al., ICLR 2024, arXiv 2402.04087): Gaussian discriminant analysis of the images beside the text, in closed form.

    logits = s · f · tᵀ + α (f · Wᵀ + b),  W = μ P,  b_c = log(1/C) − μ_c P μ_cᵀ / 2,  P = D (S + τ I)⁻¹,  τ = tr(S) / (N − 1)

μ_c is the mean of the N rows (views of images) of a class, S the scatter of all rows around the means of their classes, and D the
width of a row. The scatter has at most N directions, so the N × N system is solved where that is smaller (Woodbury's identity).
α is chosen from :data:`ALPHAS`, on validation images or in a cross-validation.

With one view of one image per class, S and τ are 0. As published, P is then 0, and the predictions are those of the text.
``floor`` is a lower bound of τ, with which the nearest class mean speaks instead; recipe general has 1, measured better with few
images on validation images.

A class without an image has no mean. It takes the mean of the other classes' weights and biases, so that its text decides.

New classes have a text t_c and no image. Their mean is that of the 64 training rows nearest to t_c and 16 copies of t_c, and
P is the mean over the new classes of D (S_c + tr(S_c) / 63 · I)⁻¹, with the scatter S_c of these rows around t_c.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from biomedcoop.backbones.base import Backbone
from biomedcoop.data.images.crops import Crops
from biomedcoop.errors import UserError
from biomedcoop.lazy import F, torch
from biomedcoop.methods.base import Abilities, Method, Progress, State, Task, register
from biomedcoop.methods.class_embeddings import template_embeddings
from biomedcoop.methods.settings import class_template, setting
from biomedcoop.methods.validation import Validation, first_best, right_by_run

if TYPE_CHECKING:
    from torch import Tensor

ALPHAS = tuple(10.0**k for k in range(-4, 3))
"""Weights α of the images beside the text that are compared, as published."""

DEFAULT_ALPHA, ALPHA_OF_ONE = 1.0, 0.1
"""α where nothing can be chosen, the second with one image per class; in a cross-validation the nearest to it wins a tie.

Each had the most right answers on the validation images of eleven datasets (``docs/results/values.md``)."""

NEIGHBOURS, COPIES = 64, 16
"""Training rows and copies of the text that make the mean of a new class."""

NOTHING = 1e-10
"""A ridge τ below this is that of rows that do not differ, but for rounding."""


@dataclass(frozen=True)
class GDASettings:
    """Settings of the text side and of the covariance."""

    template: str = class_template("text of each class")
    logit_scale: float = setting(
        0.0, "factor s of the text side; 0 for the backbone's own; the published code has 100", least=0, most=1000
    )
    covariance: str = setting(
        "shrunk",
        "shrunk (S + τ I) or classes (mean of the classes' own covariances, not shrunk, as published for base-to-novel)",
        choices=("shrunk", "classes"),
    )
    floor: float = setting(
        0.0,
        "lower bound of the ridge τ; 0 as published, which leaves the text alone with one view of one image",
        least=0,
    )


@register
class GDA(Method):
    name = "gda"
    title = "GDA"
    paper = "Wang et al. 2024, arXiv 2402.04087"
    settings_type = GDASettings
    abilities = Abilities(
        uses_images=True,
        retargets=True,
        needs_all_views=True,
        chooses="α",
        otherwise=f"α = {DEFAULT_ALPHA:g}, or {ALPHA_OF_ONE:g} with one image per class",
        closed_form=True,
    )
    parameters = "nothing"
    learned: ClassVar[tuple[str, ...]] = ()
    crops: ClassVar[Crops] = Crops(smallest=0.5, flip=0.5)

    def fit(
        self, task: Task, settings: GDASettings, seeds: Sequence[int], progress: Progress | None = None
    ) -> list[State]:
        scale = settings.logit_scale or task.backbone.logit_scale
        text = template_embeddings(task.backbone, task.class_names, settings.template)
        rows = F.normalize(task.features, dim=-1)
        weight, bias = discriminant(rows, task.labels, len(task.class_names), settings)
        alpha = chosen_alphas(task, scale * text, settings)
        # new classes need the rows themselves
        kept = [{"rows": own} for own in rows.cpu()] if rows.shape[1] >= NEIGHBOURS else [{}] * len(rows)
        return [
            {"text": text.float().cpu(), "logit_scale": torch.tensor(scale), "weight": w, "bias": b, "alpha": a, **own}
            for w, b, a, own in zip(weight.cpu(), bias.cpu(), alpha.cpu(), kept, strict=True)
        ]

    def logits(self, state: State, features: Tensor, backbone: Backbone) -> Tensor:
        f = F.normalize(features, dim=-1)
        return state["logit_scale"] * f @ state["text"].T + state["alpha"] * (f @ state["weight"].T + state["bias"])

    def retarget(self, state: State, task: Task, settings: GDASettings) -> State:
        if "rows" not in state:
            raise UserError(
                f"gda takes new classes only with at least {NEIGHBOURS} crops of training images, and this classifier has fewer; "
                "train with more --shots or --views"
            )
        text = template_embeddings(task.backbone, task.class_names, settings.template).float().cpu()
        weight, bias = discriminant_of_texts(state["rows"], text)
        return {**state, "text": text, "weight": weight, "bias": bias}


def discriminant(rows: Tensor, labels: Tensor, classes: int, settings: GDASettings) -> tuple[Tensor, Tensor]:
    """Weights [R, C, E] and biases [R, C] of R runs, from unit-norm rows [R, N, E] and labels int64 [R, N]."""
    one_hot = F.one_hot(labels, classes).to(rows.dtype)
    counts = one_hot.sum(1)  # [R, C]
    there = (counts > 0).to(rows.dtype)[..., None]
    means = one_hot.transpose(1, 2) @ rows / counts.clamp(min=1)[..., None]
    centred = rows - one_hot @ means
    if settings.covariance == "classes":
        # Σ over classes and rows of (row − mean)² / (n_c − 1), divided by the number of classes, is the mean covariance
        share = 1 / ((counts - 1).clamp(min=1) * there.sum(1)).sqrt()
        weight = pseudo_inverse_times(centred * (one_hot @ share[..., None]), means)
    else:
        ridge = centred.square().sum((1, 2)) / max(1, rows.shape[1] - 1)
        weight = precision_times(centred, ridge.clamp(min=settings.floor), means)
    bias = -math.log(classes) - (weight * means).sum(-1) / 2
    together = torch.cat([weight, bias[..., None]], -1)  # [R, C, E + 1]
    mean = (together * there).sum(1, keepdim=True) / there.sum(1, keepdim=True)
    together = torch.where(there > 0, together, mean)
    return together[..., :-1], together[..., -1]


def discriminant_of_texts(rows: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [C, E] and biases [C] of new classes, from unit-norm training rows [N, E] and texts [C, E]."""
    nearest = rows[(text @ rows.T).topk(NEIGHBOURS).indices]  # [C, 64, E]
    means = (nearest.sum(1) + COPIES * text) / (NEIGHBOURS + COPIES)
    centred = nearest - text[:, None]
    ridge = centred.square().sum((1, 2)) / (NEIGHBOURS - 1)
    weight = precision_times(centred, ridge, means.expand(len(text), *means.shape)).mean(0)
    return weight, -math.log(len(text)) - (weight * means).sum(-1) / 2


def precision_times(centred: Tensor, ridge: Tensor, x: Tensor) -> Tensor:
    """x · D (AᵀA + τ I)⁻¹ [R, C, D] of vectors x [R, C, D], for rows A [R, N, D] and τ [R]; 0 where τ is 0.

    On the CPU for every device: some lack the solver, and none is faster with systems this small.
    """
    device, (n, d) = x.device, centred.shape[1:]
    a, x, ridge = centred.cpu(), x.cpu(), ridge.cpu()[:, None, None]
    nothing = ridge < NOTHING
    ridge = torch.where(nothing, torch.ones_like(ridge), ridge)
    small = a @ a.transpose(1, 2) if n < d else a.transpose(1, 2) @ a
    factor = torch.linalg.cholesky(small + ridge * torch.eye(min(n, d), dtype=a.dtype))
    if n < d:
        found = (x - torch.cholesky_solve(a @ x.transpose(1, 2), factor).transpose(1, 2) @ a) / ridge
    else:
        found = torch.cholesky_solve(x.transpose(1, 2), factor).transpose(1, 2)
    return torch.where(nothing, torch.zeros_like(found), d * found).to(device)


def pseudo_inverse_times(a: Tensor, x: Tensor) -> Tensor:
    """x (AᵀA)⁺ [R, C, D] for vectors x [R, C, D] and rows A [R, N, D].

    In double precision, with the cutoff of a pseudo-inverse in single precision: the covariance of few rows is nearly singular.
    """
    _, values, vectors = torch.linalg.svd(a.cpu().double(), full_matrices=False)  # [R, M], [R, M, D]
    squares = values.square()
    kept = squares > a.shape[-1] * torch.finfo(torch.float32).eps * squares[:, :1]
    inverse = torch.where(kept, 1 / squares, 0.0)
    found: Tensor = (x.cpu().double() @ vectors.transpose(1, 2) * inverse[:, None]) @ vectors
    return found.to(x.device, x.dtype)


def chosen_alphas(task: Task, text: Tensor, settings: GDASettings) -> Tensor:
    """α of each run [R], with the most right answers; ``text`` is scaled, [C, E].

    In a tie, validation images take the smallest, as published, and a cross-validation the nearest to the default.
    """
    default = DEFAULT_ALPHA if task.n_images >= 2 * len(text) else ALPHA_OF_ONE
    alphas = torch.tensor(ALPHAS, device=text.device)

    def right(part: Validation, _: Tensor) -> Tensor:
        rows = F.normalize(part.task.features, dim=-1)
        weight, bias = discriminant(rows, part.task.labels, len(text), settings)
        f = F.normalize(part.features, dim=-1)
        images = f @ weight.transpose(1, 2) + bias[:, None]
        return right_for_each(alphas, f @ text.T, images, part.labels)

    found = right_by_run(task, right)
    if found is None:
        return torch.full((len(task.labels),), default)
    distance = (alphas / default).log().abs() if task.val_features is None else alphas
    return alphas[first_best(found, distance)]


def right_for_each(weights: Tensor, one: Tensor, other: Tensor, labels: Tensor) -> Tensor:
    """Right answers [R, G] of ``one`` + w · ``other``, logits [R, V, C], for each w of ``weights`` [G]; labels [R, V]."""
    answers = [(one + w * other).argmax(-1) == labels for w in weights]
    return torch.stack([own.sum(1) for own in answers], 1)
