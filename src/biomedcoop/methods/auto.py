"""Auto: a mixture of methods, weighted by what each says of training images that it has not learned from.

Each candidate is fitted within the folds of the training images, all folds in company. A held-out image i has the probability
p_m(y_i) of its class from candidate m, whose temperature T_m makes the held-out log-loss smallest. The weights are the maximum a
posteriori of a mixture (stacking: Wolpert 1992; Breiman 1996), found by expectation and maximisation:

    w = argmax Σ_i log Σ_m w_m p_m(y_i) + a Σ_m π_m log w_m

The prior π, with the strength of ``a`` images, is what the candidates were worth on other datasets (``auto.json``), because a few
images alone decide little. The chosen candidates learn from all training images; logits = log Σ_m w_m softmax(logits_m / T_m).
Without two folds, as with one image of a class, nothing can be judged: the candidate that was most often right on those datasets
answers alone.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from biomedcoop.backbones.base import Backbone
from biomedcoop.errors import UserError, nearest
from biomedcoop.lazy import torch
from biomedcoop.methods.base import Abilities, Method, Progress, State, Task, register, state_on
from biomedcoop.methods.held_out import held_out_logits
from biomedcoop.methods.registry import all_methods, can_run, get_method
from biomedcoop.methods.settings import setting

if TYPE_CHECKING:
    from torch import Tensor

CANDIDATES = (
    *(
        "zero-shot",
        "zero-shot-ensemble",
        "linear-probe",
        "lp++",
        "tip-adapter",
        "gda",
        "ss-text+",
        "simpleshot",
        "krr",
        "timo",
    ),
    "biomedcoop",
)

RECIPE = "fast"
"""Recipe of the candidates' settings."""

SMALLEST = 0.02
"""Weight below which a candidate is left out: it would cost room and time in every prediction and change almost none."""

PARTS = 5
"""Parts of the validation images by which the mixture itself is measured; without them the folds are the parts."""

ITERATIONS = 200
"""Steps of the expectation and maximisation."""

MACS_PER_SECOND = 2e10
"""Multiply-adds in a second of two usual cores, by which the time of a candidate is estimated.

With a measured speed, the choice, and so the classifier, would differ from run to run."""

TEMPERATURES = tuple(2 ** (step / 4) for step in range(-28, 29))
"""Candidate temperatures, 1/128 to 128."""


@dataclass(frozen=True)
class AutoSettings:
    """Settings of the choice: the candidates, the time, and the strength of the prior."""

    methods: str = setting(",".join(CANDIDATES), "candidates, separated by commas")
    budget: float = setting(
        60.0,
        "seconds on two cores, by an estimate, for candidates that train through the text encoder; the most expensive are left "
        "out; all others are tried",
        above=0,
    )
    prior: float = setting(8.0, "strength of the prior weights, in images", above=0)
    spread: float = setting(1.0, "standard deviation of a temperature's logarithm around its prior", above=0)


class Tried(NamedTuple):
    """What a run found out about one candidate.

    Attributes:
        method: its name.
        temperature: number that divides the candidate's logits; 0 for one that was not tried, because of the budget.
        weight: share in the mixture, 0 if it is left out.
        accuracy, log_loss: of held-out images; None if no image could be held out.
        accuracy_error, log_loss_error: their standard errors.
    """

    method: str
    temperature: float
    weight: float
    accuracy: float | None = None
    accuracy_error: float | None = None
    log_loss: float | None = None
    log_loss_error: float | None = None

    @property
    def tensor(self) -> Tensor:
        """All that is known but the name, float32 [2] or [6]."""
        return torch.tensor([value for value in self[1:] if value is not None], dtype=torch.float32)


class Measured(NamedTuple):
    """Accuracy and log-loss of held-out images, with their standard errors."""

    accuracy: float
    accuracy_error: float
    log_loss: float
    log_loss_error: float

    @classmethod
    def of(cls, right: Tensor, log_p: Tensor, views: int) -> Measured:
        """Of N·V rows: whether each is answered rightly, and the log-probability of its class, both [N·V]."""
        root = (len(right) / views) ** 0.5
        right = right.double()
        errors = [float(x.std(correction=0)) / root for x in (right, log_p)]
        return cls(float(right.mean()), errors[0], -float(log_p.mean()), errors[1])


@register
class Auto(Method):
    name = "auto"
    title = "Auto"
    paper = "stacking: Wolpert 1992, Neural Networks 5"
    settings_type = AutoSettings
    abilities = Abilities(
        uses_images=True,
        uses_sentences=True,
        needs_all_views=True,
        needs_text_tower=False,  # without one, it leaves out the candidates that need it
        chooses="the weights of its methods",
        otherwise="the method that was best on other datasets",
    )
    parameters = "those of its methods"

    def settings(
        self,
        single: Mapping[str, Any],
        recipe: str = "paper",
        dataset: str | None = None,
        modality: str | None = None,
        organ: str | None = None,
    ) -> Any:
        settings = super().settings(single, recipe, dataset, modality, organ)
        known = [name for name, method in all_methods().items() if name != self.name and can_be_judged(method)]
        if not names_in(settings):
            raise UserError(
                f"method {self.name}: no candidate is named; --set methods=zero-shot,linear-probe names two"
            )
        for name in names_in(settings):
            if name not in known:
                raise UserError(f"method {self.name}: no candidate '{name}'; {nearest(name, known)}")
        return settings

    def step_macs(self, task: Task, settings: AutoSettings) -> int:
        return max(get_method(name).step_macs(task, settings_of(name)) for name in candidates(task, settings)[0])

    def fit(
        self, task: Task, settings: AutoSettings, seeds: Sequence[int], progress: Progress | None = None
    ) -> list[State]:
        names, dear = candidates(task, settings)
        bare = replace(task, val_features=None, val_labels=None, folds=None)
        judged = [run for run in range(len(seeds)) if task.val_labels is not None or has_folds(task, run)]
        begin, steps = time.monotonic(), 2 * len(names)

        def report(done: int, words: str) -> None:
            if progress is not None:
                progress(done, steps, words)

        held: dict[str, Tensor] = {}
        for number, name in enumerate(names if judged else ()):
            report(number, f"judging {name}")
            own_seeds = [seeds[run] for run in judged]
            # in double precision, which some devices lack
            held[name] = judging_logits(get_method(name), runs_of(task, judged), settings_of(name), own_seeds).cpu()
        chosen_after = time.monotonic() - begin
        prior = prior_of(names, task.n_images / len(task.class_names))
        labels, views = (task.labels, task.views) if task.val_labels is None else (task.val_labels, 1)
        tried: list[list[Tried]] = []
        states: list[State] = []
        for run, truth in enumerate(labels.cpu()):
            own = {name: held[name][judged.index(run)] for name in names} if run in judged else {}
            tried.append([*choose(own, truth, prior, settings, views), *(Tried(name, 0.0, 0.0) for name in dear)])
            states.append({f"tried.{one.method}": one.tensor for one in tried[-1]})
            if own:
                folds = None if task.val_labels is not None else task.folds
                parts = torch.arange(len(truth)) % PARTS if folds is None else folds[run].cpu()
                found = measured_mixture(own, truth, prior, settings, views, parts.repeat_interleave(views))
                states[-1]["mixture"] = torch.tensor(found, dtype=torch.float32)
        for number, name in enumerate(names):
            report(len(names) + number, f"training {name}")
            runs = [run for run, own in enumerate(tried) if own[number].weight]
            if runs:
                fitted = get_method(name).fit(runs_of(bare, runs), settings_of(name), [seeds[run] for run in runs])
                for run, state in zip(runs, fitted, strict=True):
                    states[run] |= {f"{name}.{key}": value for key, value in state.items()}
        share = chosen_after / max(time.monotonic() - begin, 1e-9)
        report(steps, f"choosing took {100 * share:.0f} % of the time")
        return states

    def tried(self, state: State) -> list[dict[str, Any]]:
        """The mixture itself, which has no weight, if images were held out; then its candidates, by weight."""
        whole = []
        if "mixture" in state:
            measured = Measured(*state["mixture"].tolist())._asdict()
            whole.append({"method": self.name, "temperature": None, "weight": None, **measured})
        candidates = sorted(tried_in(state), key=lambda one: (-one.weight, one.method))
        return [*whole, *(one._asdict() for one in candidates)]

    def logits(self, state: State, features: Tensor, backbone: Backbone) -> Tensor:
        chosen = [one for one in tried_in(state) if one.weight]
        return mixed(
            {
                one.method: get_method(one.method).logits(member(state, one.method), features, backbone)
                for one in chosen
            },
            chosen,
        )


def names_in(settings: AutoSettings) -> list[str]:
    """Names of the candidates in the setting ``methods``."""
    return list(dict.fromkeys(name.strip() for name in settings.methods.split(",") if name.strip()))


def can_be_judged(method: Method) -> bool:
    """Whether a method learns in a time and from features that allow a fit for each fold beside others."""
    able = method.abilities
    return not (able.changes_towers or able.uses_unlabelled or able.before_projection)


def settings_of(name: str) -> Any:
    """Settings of a candidate."""
    return get_method(name).settings({}, RECIPE)


def candidates(task: Task, settings: AutoSettings) -> tuple[list[str], list[str]]:
    """Names of the candidates that a task can use within the budget, and of those that cost too much.

    Raises:
        UserError: the backbone, without a text tower, can run none of them.
    """
    able = [name for name in names_in(settings) if can_run(get_method(name), task.backbone)]
    if not able:
        raise UserError(
            f"the backbone '{task.backbone.name}' has no text tower, which all candidates ({settings.methods}) need; add "
            "linear-probe, which needs none"
        )
    seconds, kept = 0.0, list[str]()
    for name in sorted(able, key=lambda name: cost(name, task)):
        seconds += cost(name, task)
        if not kept or seconds <= settings.budget:
            kept.append(name)
    return [name for name in able if name in kept], [name for name in able if name not in kept]


def cost(name: str, task: Task) -> float:
    """Estimated seconds of a candidate that trains through the text tower, for one run with its folds; 0 for all others."""
    method, settings = get_method(name), settings_of(name)
    macs = method.step_macs(task, settings)
    if not macs:
        return 0.0
    steps = int(settings.epochs) * math.ceil(task.n_images / int(settings.batch_size))
    return 2 * macs * steps / MACS_PER_SECOND  # two halves and the whole


def has_folds(task: Task, run: int) -> bool:
    return task.folds is not None and bool(task.folds[run].any())


def runs_of(task: Task, runs: Sequence[int]) -> Task:
    """The task with only some of its runs."""
    own = ("features", "labels", "val_features", "val_labels", "folds")
    given = {name: of_all for name in own if (of_all := getattr(task, name)) is not None}
    parts: dict[str, Any] = {name: torch.stack([of_all[run] for run in runs]) for name, of_all in given.items()}
    return replace(task, **parts)


def judging_logits(method: Method, task: Task, settings: Any, seeds: Sequence[int]) -> Tensor:
    """Logits [R, V, C] of the validation images, or [R, N·V, C] of the training images from fits without their fold.

    Training through the text tower is dear, so such a method gets halves in place of folds.
    """
    bare = replace(task, val_features=None, val_labels=None, folds=None)
    if task.val_features is None and method.abilities.uses_images:
        assert task.folds is not None
        folds = task.folds % 2 if method.step_macs(task, settings) else task.folds
        return held_out_logits(method, bare, settings, seeds, folds)
    images = task.features if task.val_features is None else task.val_features
    states = method.fit(bare, settings, seeds)
    return torch.stack(
        [
            method.logits(state_on(state, own.device), own, task.backbone).float()
            for state, own in zip(states, images, strict=True)
        ]
    ).detach()


class Prior(NamedTuple):
    """What other datasets say about a candidate: its weight in the best mixture, its temperature, and its accuracy."""

    weight: float
    temperature: float
    accuracy: float


@cache
def priors() -> dict[str, dict[int, Prior]]:
    """What is known of each candidate by images per class; ``benchmarks/studies/auto.py`` writes the file."""
    content = json.loads(files("biomedcoop.methods").joinpath("auto.json").read_text("utf-8"))
    return {name: {int(shots): Prior(*values) for shots, values in own.items()} for name, own in content.items()}


def prior_of(names: Sequence[str], shots: float) -> dict[str, Prior]:
    """The prior of each candidate, of the measured number of images per class nearest to ``shots`` by ratio.

    A candidate that was not measured there has the smallest weight of those that were: the held-out images must speak for it. Its
    temperature is that of the nearest number where it was measured, or 1.
    """

    def nearest_to(numbers: Iterable[int]) -> int:
        return min(numbers, key=lambda k: abs(math.log(k / max(shots, 1))))

    measured = {name: priors().get(name, {}) for name in names}
    at = nearest_to(k for own in priors().values() for k in own)
    least = min((own[at].weight for own in measured.values() if at in own), default=1.0)
    weights = {name: own[at].weight if at in own else least for name, own in measured.items()}
    total, found = sum(weights.values()), {}
    for name, own in measured.items():
        temperature = own[nearest_to(own)].temperature if own else 1.0
        found[name] = Prior(weights[name] / total, temperature, own[at].accuracy if at in own else 0.0)
    return found


def choose(
    held: Mapping[str, Tensor],
    labels: Tensor,
    prior: Mapping[str, Prior],
    settings: AutoSettings,
    views: int = 1,
) -> list[Tried]:
    """Temperature and weight of each candidate.

    Args:
        held: logits [N·V, C] of each candidate of images that it has not learned from; empty if there are none.
        labels: int64 [N·V].
        prior: what is known of each candidate.
        views: number V of rows of each image, which count as one.
    """
    if not held:
        best = max(prior, key=lambda name: prior[name].accuracy)
        return [Tried(name, known.temperature, float(name == best)) for name, known in prior.items()]
    truth = labels[:, None]
    temperatures = [
        fitted_temperature(held[name], truth, prior[name].temperature, settings.spread, views) for name in prior
    ]
    log_p = torch.stack(
        [
            (held[name].double() / t).log_softmax(-1).gather(1, truth)[:, 0]
            for name, t in zip(prior, temperatures, strict=True)
        ]
    )
    found = mixture_weights(log_p, torch.tensor([prior[name].weight for name in prior]).double(), settings.prior, views)
    return [
        Tried(name, t, w, *Measured.of(held[name].argmax(-1) == labels, own, views))
        for name, t, own, w in zip(prior, temperatures, log_p, pruned(found), strict=True)
    ]


def mixed(logits: Mapping[str, Tensor], tried: Iterable[Tried]) -> Tensor:
    """Log-probabilities [N, C] of the mixture, from the logits [N, C] of its candidates."""
    return torch.stack(
        [(logits[one.method] / one.temperature).log_softmax(-1) + math.log(one.weight) for one in tried if one.weight]
    ).logsumexp(0)


def measured_mixture(
    held: Mapping[str, Tensor],
    labels: Tensor,
    prior: Mapping[str, Prior],
    settings: AutoSettings,
    views: int,
    parts: Tensor,
) -> Measured:
    """What the mixture is worth on held-out images, each part answered with temperatures and weights chosen on the others.

    Args:
        held, labels, prior, settings, views: see :func:`choose`.
        parts: part of each row, int64 [N·V].
    """
    log_p = torch.empty(len(labels), next(iter(held.values())).shape[-1], dtype=torch.float64)
    for part in set(parts.tolist()):
        own = parts == part
        others = {name: logits[~own] for name, logits in held.items()}
        chosen = choose(others, labels[~own], prior, settings, views)
        log_p[own] = mixed({name: logits[own].double() for name, logits in held.items()}, chosen)
    return Measured.of(log_p.argmax(-1) == labels, log_p.gather(1, labels[:, None])[:, 0], views)


def fitted_temperature(logits: Tensor, truth: Tensor, prior: float, spread: float, views: int) -> float:
    """The most probable temperature, among multiples of its prior: held-out log-loss plus the distance from the prior."""
    scales = torch.tensor(TEMPERATURES, dtype=torch.float64, device=logits.device)
    scaled = logits.double() / (prior * scales)[:, None, None]  # [T, N·V, C]
    loss = -scaled.log_softmax(-1).gather(2, truth.expand(len(scales), -1, -1)).sum((1, 2)) / views
    return prior * TEMPERATURES[int((loss + (scales.log() / spread).square() / 2).argmin())]


def mixture_weights(log_p: Tensor, prior: Tensor, strength: float, views: int) -> Tensor:
    """Weights [M] of the most probable mixture, from log-probabilities [M, N·V] of the right classes and the prior weights [M]."""
    weights = prior / prior.sum()
    for _ in range(ITERATIONS):
        shares = (log_p + weights.log()[:, None]).softmax(0).sum(1) / views
        weights = shares + strength * prior
        weights = weights / weights.sum()
    return weights


def pruned(weights: Tensor) -> list[float]:
    """Weights that sum to 1, without the small ones."""
    kept = torch.where(weights >= min(SMALLEST, float(weights.max())), weights, 0.0)
    return [float(w) for w in kept / kept.sum()]


def tried_in(state: State) -> list[Tried]:
    """What a fitted state says about its candidates, in the order of their names."""
    return [Tried(name, *member(state, "tried")[name].tolist()) for name in sorted(member(state, "tried"))]


def member(state: State, name: str) -> State:
    """The state of one chosen method."""
    return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
