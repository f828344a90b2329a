"""Choosing by cross-validation within the training images, and the defaults where no fold is possible."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from biomedcoop.backbones.base import Backbone
from biomedcoop.data.sampling.folds import draw_folds
from biomedcoop.methods import Method, Task, all_methods, get_method
from biomedcoop.methods.validation import stacked, validations

RUNS = 2
QUICK = {
    "clip-adapter": {"search": True, "epochs": 4, "lr": 0.5},
    "krr": {"form": "ridge"},
    "linear-probe": {"bisections": 2},
    "lp++": {"epochs": 40},
    "tip-adapter": {"grid": 8},
    "tip-adapter-f": {"grid": 8},
}
CHOOSING = [
    name for name, method in all_methods().items() if method.abilities.chooses and not method.abilities.changes_towers
]


@pytest.fixture(params=CHOOSING)
def method(request: pytest.FixtureRequest) -> Method:
    return get_method(request.param)


@pytest.fixture(scope="module")
def task(tiny: Backbone) -> Task:
    """Two runs of overlapping classes: 9, 5 and 6 images in each, in folds that differ from run to run."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.tensor([0] * 9 + [1] * 5 + [2] * 6).expand(RUNS, -1)
    centres = torch.randn(3, tiny.embed_dim, generator=generator)
    features = centres[labels] + 1.5 * torch.randn(RUNS, 20, tiny.embed_dim, generator=generator)
    folds = [draw_folds(labels[r].numpy(), np.arange(20), 5, r) for r in range(RUNS)]
    sentences = torch.randn(3, 4, tiny.embed_dim, generator=generator)
    names = ["cyst", "stone", "tumor"]
    return Task(tiny, names, features, labels, sentences, folds=torch.from_numpy(np.stack(folds)))


def fitted(method: Method, task: Task, seeds: list[int]) -> list[dict[str, torch.Tensor]]:
    return method.fit(task, method.settings(QUICK.get(method.name, {})), seeds)


def run_of(task: Task, run: int) -> Task:
    assert task.folds is not None
    own = slice(run, run + 1)
    return replace(task, features=task.features[own], labels=task.labels[own], folds=task.folds[own])


def test_each_fold_judges_what_the_others_teach(task: Task) -> None:
    assert task.folds is not None
    twice = replace(
        task, features=task.features.repeat_interleave(2, 1), labels=task.labels.repeat_interleave(2, 1), views=2
    )
    parts = validations(twice, 1)
    assert len(parts) == 5
    everything = {tuple(row) for row in task.features[1].tolist()}
    judged: list[tuple[float, ...]] = []
    for number, part in enumerate(parts):
        taught, tested = ({tuple(row) for row in f[0].tolist()} for f in (part.task.features, part.features))
        assert taught | tested == everything
        assert not taught & tested
        assert len(tested) == int((task.folds[1] == number).sum())
        assert part.task.n_images == len(taught)
        assert part.features.shape[1] == part.labels.shape[1] == 2 * len(tested)
        judged += tested
    assert sorted(judged) == sorted(everything)
    joined = stacked(parts)
    assert sum(len(part.labels) for part in joined) == 5
    assert len({part.task.labels.shape[1] for part in joined}) == len(joined)


def test_alone_or_in_company(method: Method, task: Task) -> None:
    """A run chooses the same alone, and the same bits come again."""
    together = fitted(method, task, [5, 6])
    for run, seed in enumerate([5, 6]):
        (alone,) = fitted(method, run_of(task, run), [seed])
        for name in ("c", "alpha", "beta", "ratio"):
            if name in alone and alone[name].dim() == 0:
                assert alone[name] == together[run][name]
        for name, value in alone.items():
            torch.testing.assert_close(value, together[run][name], atol=1e-4, rtol=1e-4)
    for again, before in zip(fitted(method, task, [5, 6]), together, strict=True):
        assert all(torch.equal(again[name], before[name]) for name in before)


def test_the_chosen_weights_of_the_cache_are_the_best(task: Task) -> None:
    """Counted with a classifier for each fold and candidate."""
    method = get_method("tip-adapter")
    (state,) = fitted(method, run_of(task, 0), [1])
    assert task.folds is not None

    def right(alpha: float, beta: float) -> int:
        count = 0
        for fold in range(5):
            inside = task.folds[0] == fold
            weights = {"alpha": torch.tensor(alpha), "beta": torch.tensor(beta)}
            own = {**state, "keys": state["keys"][~inside], "values": state["values"][~inside], **weights}
            answers = method.logits(own, task.features[0, inside], task.backbone).argmax(1)
            count += int((answers == task.labels[0, inside]).sum())
        return count

    steps = [0.1 + i * 49.9 / 8 for i in range(8)]
    counts = {(beta, alpha): right(alpha, beta) for beta in steps for alpha in steps}
    chosen = right(float(state["alpha"]), float(state["beta"]))
    assert chosen == max(counts.values()) > min(counts.values())


def test_timo_with_a_given_alpha_chooses_the_others(task: Task) -> None:
    method = get_method("timo")
    settings = method.settings({"alpha": 3.0})
    assert method.chooses(settings) == ""
    assert method.chooses(method.settings({})) == "α"
    assert method.chooses(method.settings({"search": True})) == "γ, β and α"
    given = method.fit(task, settings, [5, 6])
    bare = method.fit(replace(task, folds=None), settings, [5, 6])
    assert all(torch.equal(one[name], other[name]) for one, other in zip(given, bare, strict=True) for name in one)
    searched = method.fit(task, method.settings({"alpha": 3.0, "search": True}), [5, 6])
    assert [float(state["alpha"]) for state in [*given, *searched]] == [3.0] * 4
    assert method.chooses(method.settings({"alpha": 3.0, "search": True})) == "γ and β"
    assert any(not torch.equal(one["weight"], other["weight"]) for one, other in zip(given, searched, strict=True))


def test_the_chosen_ratio_of_the_adapter_is_the_best(task: Task) -> None:
    """Counted with a classifier for each fold; training takes the setting, whatever is chosen."""
    method, one = get_method("clip-adapter"), run_of(task, 0)
    (state,) = fitted(method, one, [1])
    fixed = method.settings({**QUICK["clip-adapter"], "search": False})
    (plain,) = method.fit(one, fixed, [1])
    assert all(torch.equal(state[name], plain[name]) for name in state if name != "ratio")
    assert float(plain["ratio"]) == 0.5
    parts = [(method.fit(part.task, fixed, [1])[0], part) for part in validations(one, 0)]
    ratios = [k / 20 for k in range(21)]
    counts = []
    for ratio in ratios:
        answers = [
            method.logits({**own, "ratio": torch.tensor(ratio)}, part.features[0], task.backbone).argmax(1)
            for own, part in parts
        ]
        counts.append(sum(int((a == part.labels[0]).sum()) for a, (_, part) in zip(answers, parts, strict=True)))
    assert max(counts) > min(counts)
    best = [ratio for ratio, count in zip(ratios, counts, strict=True) if count == max(counts)]
    assert float(state["ratio"]) == pytest.approx(min(best, key=lambda ratio: (abs(ratio - 0.5), ratio)))
    assert method.chooses(fixed) == ""
    assert method.chooses(method.settings({"search": True})) == "α"


def test_without_folds_the_default_is_taken(method: Method, task: Task) -> None:
    assert task.folds is not None
    zero = fitted(method, replace(task, folds=torch.zeros_like(task.folds)), [5, 6])
    none = zero if method.abilities.leaves_one_out else fitted(method, replace(task, folds=None), [5, 6])
    for one, other in zip(none, zero, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
        for name, letter in (("c", "C"), ("alpha", "α"), ("beta", "β")):
            if name in one and one[name].dim() == 0:
                assert f"{letter} = {float(one[name]):g}" in method.abilities.otherwise
    mixed = fitted(method, replace(task, folds=task.folds * torch.tensor([[1], [0]])), [5, 6])
    for name, value in none[1].items():  # the second run has no folds
        torch.testing.assert_close(mixed[1][name], value, atol=1e-4, rtol=1e-4)
