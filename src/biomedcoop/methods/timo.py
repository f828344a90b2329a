"""TIMO (Li et al., AAAI 2025, arXiv 2412.11375): text and images guide each other, in closed form.

    m_cp = cos(mean image of class c, sentence p);  t_c = n(Σ_p softmax_p(γ m_c / ‖m_c‖) · sentence_cp)
    logits = α f · tᵀ + f · Wᵀ + b

Images weigh the sentences of their class. Then the β sentences of each class that agree best, each multiplied by its m, join the
images as rows of the discriminant analysis of ``gda`` (W and b). α multiplies the text. γ is 50, and β is the number of sentences.
TIMO-S searches γ, then β and α together; beyond the number of sentences, β counts them a second time.

A class without an image is guided by the mean of its sentences, and its rows are sentences alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from biomedcoop.backbones.base import Backbone
from biomedcoop.data.images.crops import Crops
from biomedcoop.lazy import F, torch
from biomedcoop.methods.base import Abilities, Method, Progress, State, Task, register
from biomedcoop.methods.gda import NOTHING, GDASettings, discriminant, right_for_each
from biomedcoop.methods.settings import setting
from biomedcoop.methods.validation import Validation, first_best, right_by_run

if TYPE_CHECKING:
    from torch import Tensor

ALPHAS = tuple(10.0**k for k in range(-4, 5))
"""Weights α of the text beside the images that are compared, as published."""

DEFAULT_ALPHA = 10.0
"""α where nothing can be chosen; in a cross-validation the nearest to it wins a tie.

It had the most right answers on the validation images of eleven datasets with one image per class (``docs/results/values.md``)."""

GAMMAS = tuple(range(5, 101, 5))
"""Values of γ that TIMO-S compares."""

STEPS = 10
"""Number of values of β that TIMO-S compares, from 1 to twice the number of sentences."""


@dataclass(frozen=True)
class TIMOSettings:
    """Settings of the sentences and of the search."""

    n_sentences: int = setting(50, "maximum number of sentences per class; the first ones are used", least=1)
    gamma: float = setting(50.0, "sharpness γ of the sentences' weights; TIMO-S chooses its own", least=0, most=1e4)
    search: bool = setting(False, "TIMO-S: choose γ and the number β of sentences too")
    alpha: float = setting(0.0, "weight α of the text beside the images; 0 to choose it", least=0, most=1e6)


@register
class TIMO(Method):
    name = "timo"
    title = "TIMO"
    paper = "Li et al. 2025, arXiv 2412.11375"
    settings_type = TIMOSettings
    abilities = Abilities(
        uses_images=True,
        uses_sentences=True,
        needs_all_views=True,
        chooses="α",
        otherwise=f"α = {DEFAULT_ALPHA:g}",
        closed_form=True,
    )
    parameters = "nothing"
    learned: ClassVar[tuple[str, ...]] = ()
    crops: ClassVar[Crops] = Crops(smallest=0.5, flip=0.5)

    def chooses(self, settings: TIMOSettings) -> str:
        alpha = "" if settings.alpha else "α"
        if settings.search:
            return f"γ, β and {alpha}" if alpha else "γ and β"
        return alpha

    def fit(
        self, task: Task, settings: TIMOSettings, seeds: Sequence[int], progress: Progress | None = None
    ) -> list[State]:
        assert task.sentence_features is not None
        sentences = F.normalize(task.sentence_features[:, : settings.n_sentences], dim=-1)  # [C, P, E]
        gamma, beta, alpha = chosen_values(task, sentences, settings)
        match = matches(task, sentences)
        text = guided(sentences, match, gamma)
        states: list[State] = [{} for _ in seeds]
        for count in sorted(set(beta.tolist())):
            same = (beta == count).nonzero()[:, 0]
            weight, bias = joint_discriminant(rows_of(task, same), match[same], sentences, count)
            for run, w, b in zip(same.tolist(), weight.cpu(), bias.cpu(), strict=True):
                states[run] = {"text": text[run].cpu(), "weight": w, "bias": b, "alpha": alpha[run].cpu()}
        return states

    def logits(self, state: State, features: Tensor, backbone: Backbone) -> Tensor:
        f = F.normalize(features, dim=-1)
        return state["alpha"] * f @ state["text"].T + f @ state["weight"].T + state["bias"]


def rows_of(task: Task, runs: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Unit-norm rows [R, N, E] and labels [R, N] of some runs of a task."""
    chosen = slice(None) if runs is None else runs
    return F.normalize(task.features[chosen], dim=-1), task.labels[chosen]


def matches(task: Task, sentences: Tensor) -> Tensor:
    """Cosines [R, C, P] of each class's mean image with its sentences [C, P, E]."""
    rows, labels = rows_of(task)
    one_hot = F.one_hot(labels, len(sentences)).to(rows.dtype)
    sums = one_hot.transpose(1, 2) @ rows  # [R, C, E]
    guide = torch.where(one_hot.sum(1)[..., None] > 0, sums, sentences.mean(1))
    return torch.einsum("rce,cpe->rcp", F.normalize(guide, dim=-1), sentences)


def guided(sentences: Tensor, match: Tensor, gamma: Tensor) -> Tensor:
    """Text of each class that its images guide, [R, C, E], from cosines [R, C, P] and γ [R]."""
    share = (gamma[:, None, None] * F.normalize(match, dim=-1)).softmax(-1)
    return F.normalize(torch.einsum("rcp,cpe->rce", share, sentences), dim=-1)


def joint_discriminant(
    images: tuple[Tensor, Tensor], match: Tensor, sentences: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Weights [R, C, E] and biases [R, C] from images and the ``count`` sentences of each class that agree best."""
    rows, labels = images
    c, p, e = sentences.shape
    best, order = match.sort(dim=-1, descending=True, stable=True)
    taken = torch.arange(count, device=order.device) % p
    index = order[..., taken]  # [R, C, count]
    chosen = sentences[torch.arange(c, device=index.device)[:, None], index] * best[..., taken, None]
    of_sentences = torch.arange(c, device=labels.device).repeat_interleave(count).expand(len(labels), -1)
    rows = torch.cat([chosen.reshape(len(labels), c * count, e), rows], 1)
    return discriminant(rows, torch.cat([of_sentences, labels], 1), c, GDASettings())


def joint_logits(
    images: tuple[Tensor, Tensor], match: Tensor, sentences: Tensor, counts: Sequence[int], f: Tensor
) -> Iterator[Tensor]:
    """Logits [R, V, C] of unit-norm features [R, V, E] by :func:`joint_discriminant` with each of several numbers of sentences.

    All of them are made of the same rows, so the products of rows are computed once; a sentence that counts twice is one row of
    weight 2. It is the quicker way where the rows are fewer than the numbers of a feature.
    """
    rows, labels = images
    c, p, e = sentences.shape
    best, order = match.sort(dim=-1, descending=True, stable=True)
    ranked = sentences[torch.arange(c, device=order.device)[:, None], order] * best[..., None]  # [R, C, P, E]
    every = torch.cat([ranked.flatten(1, 2), rows], 1).cpu()  # [R, M, E]
    classes = torch.arange(c, device=labels.device).repeat_interleave(p).expand(len(labels), -1)
    of_class = F.one_hot(torch.cat([classes, labels], 1).cpu(), c).to(every.dtype)  # [R, M, C]
    products, across = every @ every.transpose(1, 2), f.cpu() @ every.transpose(1, 2)
    for count in counts:
        times = count // p + (torch.arange(p) < count % p).to(every.dtype)
        times = torch.cat([times.repeat(c), torch.ones(labels.shape[1])])
        kept = times.nonzero()[:, 0]
        root, own = times[kept].sqrt()[:, None], of_class[:, kept]
        share = root.square() * own
        share = share / share.sum(1, keepdim=True)  # [R, M', C]: what each row gives to the mean of a class
        k = products[:, kept][..., kept]
        centred = k - own @ (share.transpose(1, 2) @ k)
        to_means = centred @ share  # [R, M', C]
        scatter = root * (centred - to_means @ own.transpose(1, 2)) * root.T
        spread = scatter.diagonal(dim1=1, dim2=2).sum(-1)[:, None, None]
        ridge = spread / max(1, c * count + labels.shape[1] - 1)
        nothing = ridge < NOTHING
        ridge = torch.where(nothing, torch.ones_like(ridge), ridge)
        factor = torch.linalg.cholesky(scatter + ridge * torch.eye(len(kept)))
        right = root * to_means
        solved = torch.cholesky_solve(right, factor)  # [R, M', C]
        theirs = across[..., kept]
        means = theirs @ share  # [R, V, C]
        seen = means - ((theirs - means @ own.transpose(1, 2)) * root.T) @ solved
        sizes = (share * (k @ share)).sum(1) - (right * solved).sum(1)  # [R, C]
        logits = e / ridge * (seen - sizes[:, None] / 2)
        yield (torch.where(nothing, torch.zeros_like(logits), logits) - math.log(c)).to(f.device)


def chosen_values(task: Task, sentences: Tensor, settings: TIMOSettings) -> tuple[Tensor, Tensor, Tensor]:
    """γ [R], β int64 [R] and α [R] of each run.

    In a tie, validation images take the first, as published. A cross-validation takes the α nearest to :data:`DEFAULT_ALPHA`, then
    the β nearest to the number of sentences, and the γ nearest to its setting.
    """
    runs, p, device = len(task.labels), sentences.shape[1], sentences.device
    tried = (settings.alpha,) if settings.alpha else ALPHAS
    gammas, alphas = (torch.tensor(v, dtype=torch.float32, device=device) for v in (GAMMAS, tried))
    steps = [int(1 + i * (2 * p - 1) / (STEPS - 1)) for i in range(STEPS)]
    counts = sorted(set(steps)) if settings.search else [p]
    by_folds = task.val_features is None

    def right_texts(part: Validation, _: Tensor) -> Tensor:
        match, f = matches(part.task, sentences), F.normalize(part.features, dim=-1)
        texts = [guided(sentences, match, gamma.expand(len(match))) for gamma in gammas]
        return torch.stack([((f @ t.transpose(1, 2)).argmax(-1) == part.labels).sum(1) for t in texts], 1)

    gamma = torch.full((runs,), settings.gamma, device=device)
    if settings.search and (found := right_by_run(task, right_texts)) is not None:
        rank = (gammas - settings.gamma).abs() if by_folds else gammas
        gamma = gammas[first_best(found, rank.cpu())]

    def right(part: Validation, owners: Tensor) -> Tensor:
        match, f = matches(part.task, sentences), F.normalize(part.features, dim=-1)
        known = f @ guided(sentences, match, gamma[owners]).transpose(1, 2)
        images = rows_of(part.task)
        if len(counts) > 1 and images[1].shape[1] + len(sentences) * p < f.shape[-1]:
            spoken: Iterable[Tensor] = joint_logits(images, match, sentences, counts, f)
        else:
            spoken = (
                f @ weight.transpose(1, 2) + bias[:, None]
                for weight, bias in (joint_discriminant(images, match, sentences, count) for count in counts)
            )
        found = [right_for_each(alphas, logits, known, part.labels) for logits in spoken]
        return torch.cat(found, 1)

    found = right_by_run(task, right) if len(counts) * len(tried) > 1 else None
    if found is None:
        return gamma, torch.full((runs,), p), torch.full((runs,), settings.alpha or DEFAULT_ALPHA)
    pairs = torch.arange(found.shape[1])
    if by_folds:
        distance = (alphas / DEFAULT_ALPHA).log().abs().cpu()
        from_all = torch.tensor([abs(count - p) for count in counts]) / (
            2 * p
        )  # below 1, the least step of the distance is 2.3
        pairs = distance.repeat(len(counts)) + from_all.repeat_interleave(len(alphas))
    best = first_best(found, pairs)
    return gamma, torch.tensor(counts)[best // len(alphas)], alphas[best % len(alphas)]
