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

MORE_ROWS = 1.5
"""Up to so many rows for each number of a feature, products of rows are the quicker way to choose."""


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

    All of them are made of the same rows, so the products of rows are computed once, those of sentences once for all runs; a
    sentence that counts twice is one row of weight 2. It is the quicker way where the rows are not many more than the numbers of a
    feature.
    """
    rows, labels = (tensor.cpu() for tensor in images)
    c, p, e = sentences.shape
    n = labels.shape[1]
    # the best sentence of each class, then the second best of each: fewer sentences are the first rows of more
    best, order = match.cpu().sort(dim=-1, descending=True, stable=True)
    index = (order + p * torch.arange(c)[:, None]).mT.flatten(1)  # [R, P·C]
    factor = best.mT.flatten(1)  # [R, P·C]
    spoken = sentences.cpu().flatten(0, 1)  # [C·P, E]
    among = spoken @ spoken.T

    def with_sentences(x: Tensor) -> Tensor:
        """Products [R, N, P·C] of unit-norm rows [R, N, E] with the sentences in this order."""
        found = torch.stack([own.index_select(1, i) for own, i in zip(x @ spoken.T, index, strict=True)])
        return found.mul_(factor[:, None])

    products = rows.new_empty(len(rows), n + c * p, n + c * p)  # [R, M, M], images before sentences
    products[:, :n, :n] = rows @ rows.mT
    products[:, :n, n:] = with_sentences(rows)
    products[:, n:, :n] = products[:, :n, n:].mT
    for own, i, by in zip(products, index, factor, strict=True):
        torch.mul(among.index_select(0, i).index_select(1, i), by[:, None] * by, out=own[n:, n:])
    across = torch.cat([f.cpu() @ rows.mT, with_sentences(f.cpu())], -1)  # [R, V, M]
    classes = torch.cat([labels, torch.arange(c).repeat(p).expand(len(labels), -1)], 1)
    of_class = F.one_hot(classes, c).to(rows.dtype)  # [R, M, C]
    for count in counts:
        m = n + c * min(count, p)
        times = count // p + (torch.arange(p) < count % p).to(rows.dtype)
        times = torch.cat([torch.ones(n), times.repeat_interleave(c)])[:m, None]
        # one run after the other: the matrices of all of them would not fit into the processor's cache
        found = [
            logits_of_products(k[:m, :m], own[:m], times, seen[:, :m], e)
            for k, own, seen in zip(products, of_class, across, strict=True)
        ]
        yield torch.stack(found).to(f.device)


def logits_of_products(k: Tensor, own: Tensor, times: Tensor, across: Tensor, width: int) -> Tensor:
    """Logits [V, C] of the discriminant analysis of M rows, from their products.

    Args:
        k: products of the rows, [M, M].
        own: their classes, one-hot [M, C].
        times: how often each row counts, [M, 1].
        across: products of V features with the rows, [V, M].
        width: width E of a row.
    """
    root = times.sqrt()
    share = times * own
    share = share / share.sum(0)  # [M, C]: what each row gives to the mean of a class
    to_means = k @ share  # [M, C]
    among_means = share.T @ to_means  # [C, C]
    # the products of centred rows, (1 − own shareᵀ) k (1 − share ownᵀ), are k with a change of rank 2 C
    centred = to_means - own @ among_means  # [M, C], of centred rows with means
    half = centred + own @ (among_means / 2)
    scatter = torch.addmm(k, torch.cat([own, half], 1), torch.cat([half, own], 1).T, alpha=-1)
    if times.max() > 1:
        scatter.mul_(root).mul_(root.T)
    ridge = float(scatter.trace()) / max(1.0, float(times.sum()) - 1)
    if ridge < NOTHING:
        return torch.full((len(across), own.shape[1]), -math.log(own.shape[1]))
    scatter.diagonal().add_(ridge)
    right = root * centred
    factor = torch.linalg.cholesky(scatter)
    solved = torch.linalg.solve_triangular(factor, right, upper=False)
    sizes = among_means.diagonal() - solved.square().sum(0)  # [C]
    solved = torch.linalg.solve_triangular(factor.T, solved, upper=True)  # [M, C]
    solved = root * solved
    means = across @ share  # [V, C]
    seen = means - across @ solved + means @ (own.T @ solved)
    logits: Tensor = width / ridge * (seen - sizes / 2) - math.log(own.shape[1])
    return logits


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
        if images[1].shape[1] + len(sentences) * p <= MORE_ROWS * f.shape[-1]:
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
