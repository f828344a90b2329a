"""Auto chooses on images that its candidates have not learned from, and its mixture is what it says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from biomedcoop.backbones.base import Backbone
from biomedcoop.errors import UserError
from biomedcoop.methods import Task, get_method
from biomedcoop.methods.auto import (
    AutoSettings,
    Prior,
    candidates,
    choose,
    cost,
    fitted_temperature,
    measured_mixture,
    member,
    mixture_weights,
    prior_of,
    pruned,
    settings_of,
    tried_in,
)
from biomedcoop.report.tables import tried_cells
from biomedcoop.tasks.mixture import mixture_line

METHODS = "zero-shot,linear-probe,tip-adapter"
RUNS, SHOTS, CLASSES = 2, 4, 3


def task_of(backbone: Backbone, shots: int = SHOTS, apart: float = 1.0) -> Task:
    """Classes whose mean features lie so far apart, in units of the noise."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(CLASSES).repeat_interleave(shots).expand(RUNS, -1)
    means = apart * torch.randn(CLASSES, backbone.embed_dim, generator=generator)
    features = means[labels] + torch.randn(*labels.shape, backbone.embed_dim, generator=generator)
    folds = torch.arange(shots).repeat(CLASSES).expand(RUNS, -1) if shots > 1 else torch.zeros_like(labels)
    return Task(backbone, ["cyst", "stone", "tumor"], features, labels, folds=folds)


def settings(**single: object) -> AutoSettings:
    found: AutoSettings = get_method("auto").settings({"methods": METHODS, **single})
    return found


def test_logits_are_those_of_the_mixture(tiny: Backbone) -> None:
    task = task_of(tiny)
    (state, _) = get_method("auto").fit(task, settings(), [1, 2])
    features = task.features[1]
    mixed = torch.zeros(len(features), CLASSES)
    for one in tried_in(state):
        if one.weight:
            logits = get_method(one.method).logits(member(state, one.method), features, tiny)
            mixed += one.weight * (logits / one.temperature).softmax(-1)
    found = get_method("auto").logits(state, features, tiny)
    torch.testing.assert_close(found.exp(), mixed, rtol=1e-4, atol=1e-6)
    assert sum(one.weight for one in tried_in(state)) == pytest.approx(1)


def test_members_learn_from_all_images(tiny: Backbone) -> None:
    task = task_of(tiny)
    state = get_method("auto").fit(task, settings(), [1, 2])[0]
    method = get_method("linear-probe")
    alone = method.fit(replace(task, folds=None), settings_of("linear-probe"), [1, 2])[0]
    torch.testing.assert_close(member(state, "linear-probe")["weight"], alone["weight"])


def test_what_was_tried_is_measured_on_held_out_images(tiny: Backbone) -> None:
    """Labels without any relation to the images: held out, a probe that fits its own images perfectly is right by chance."""
    task = task_of(tiny, shots=8, apart=0.0)
    for state in get_method("auto").fit(task, settings(), [1, 2]):
        probe = next(one for one in tried_in(state) if one.method == "linear-probe")
        assert probe.accuracy is not None
        assert probe.accuracy < 0.7
        assert probe.accuracy_error is not None
        assert 0.05 < probe.accuracy_error < 0.15
        assert probe.log_loss is not None
        assert probe.log_loss > 0.8


def test_the_mixture_is_measured_on_images_that_did_not_choose_it() -> None:
    """Each of two candidates is right in one half: chosen on the other half, the mixture is wrong everywhere."""
    labels, half = torch.arange(40) % 2, torch.arange(40) // 20
    right = 8 * torch.nn.functional.one_hot(labels, 2).float()
    wrong = right.flip(1)
    held = {
        "first": torch.where(half[:, None] == 0, right, wrong),
        "second": torch.where(half[:, None] == 1, right, wrong),
    }
    prior = dict.fromkeys(held, Prior(0.5, 1.0, 0.5))
    found = measured_mixture(held, labels, prior, settings(), 1, half)
    assert (found.accuracy, found.accuracy_error) == (0, 0)
    assert found.log_loss > 1
    mixed_up = measured_mixture(held, labels, prior, settings(), 1, torch.arange(40) // 2 % 2)
    assert mixed_up.log_loss == pytest.approx(0.69, abs=0.05), (
        "where every part is like the others, the two are worth the same"
    )


def test_a_mixture_of_one_is_measured_as_its_method(tiny: Backbone) -> None:
    method = get_method("auto")
    state = method.fit(task_of(tiny, shots=8), settings(methods="linear-probe"), [1, 2])[0]
    whole, alone = method.tried(state)
    assert whole["accuracy"] == pytest.approx(alone["accuracy"])
    assert whole["accuracy_error"] == pytest.approx(alone["accuracy_error"])
    assert whole["log_loss"] == pytest.approx(alone["log_loss"], abs=0.1), (
        "its temperature is chosen on the other folds"
    )
    assert mixture_line(method.tried(state)) == "The answer is a mixture of linear-probe 100 %."
    table = tried_cells(method.tried(state))
    assert [row[:2] for row in table.rows] == [["auto", ""], ["linear-probe", "100.0"]]
    assert table.rows[0][2] == table.rows[1][2]


def test_the_better_candidate_gets_the_weight(tiny: Backbone) -> None:
    state = get_method("auto").fit(task_of(tiny, shots=8, apart=2.0), settings(), [1, 2])[0]
    weights = {one.method: one.weight for one in tried_in(state)}
    prior = prior_of(METHODS.split(","), 8)
    assert weights["zero-shot"] < prior["zero-shot"].weight
    assert weights["linear-probe"] + weights["tip-adapter"] > 0.5


def test_one_image_of_each_class_takes_what_was_best_elsewhere(tiny: Backbone) -> None:
    state = get_method("auto").fit(task_of(tiny, shots=1), settings(), [1, 2])[0]
    prior = prior_of(METHODS.split(","), 1)
    (chosen,) = (one for one in tried_in(state) if one.weight)
    assert chosen.accuracy is None
    assert prior[chosen.method].accuracy == max(one.accuracy for one in prior.values())
    assert chosen.temperature == pytest.approx(prior[chosen.method].temperature)
    # the report does not show the others as if they had lost
    table = tried_cells(get_method("auto").tried(state))
    assert [row[:2] for row in table.rows] == [[chosen.method, "100.0"]]
    assert table.notes[0].startswith("No training image could be held out, so no method was compared with another")
    assert f"{chosen.method} answers alone" in table.notes[0]


def test_a_candidate_that_was_not_measured_starts_low() -> None:
    prior = prior_of(["krr", "linear-probe", "biomedcoop", "coop"], 16)
    assert prior["biomedcoop"].weight == prior["coop"].weight == min(one.weight for one in prior.values())
    assert prior["coop"].temperature == 1.0 != prior["biomedcoop"].temperature
    assert sum(one.weight for one in prior.values()) == pytest.approx(1)
    assert prior_of(["krr"], 13) == prior_of(["krr"], 16)
    assert prior_of(["coop", "kgcoop"], 4) == dict.fromkeys(("coop", "kgcoop"), Prior(0.5, 1.0, 0.0))


def test_runs_with_and_without_folds_together(tiny: Backbone) -> None:
    """As in a cross-validation of realistic draws, some of which cannot be divided."""
    task = task_of(tiny)
    assert task.folds is not None
    both = get_method("auto").fit(task, settings(), [1, 2])
    mixed = get_method("auto").fit(
        replace(task, folds=torch.stack([task.folds[0], torch.zeros_like(task.folds[1])])), settings(), [1, 2]
    )
    assert tried_in(mixed[0]) == tried_in(both[0])
    assert all(one.accuracy is None for one in tried_in(mixed[1]))


def test_a_class_without_an_image(tiny: Backbone) -> None:
    task = task_of(tiny)
    state = get_method("auto").fit(replace(task, labels=task.labels.clamp(max=1)), settings(), [1, 2])[0]
    logits = get_method("auto").logits(state, task.features[0], tiny)
    assert bool(logits.isfinite().all())
    assert logits.shape == (12, 3)


def test_views_count_as_one_image(tiny: Backbone) -> None:
    task = task_of(tiny)
    twice = replace(
        task, features=task.features.repeat_interleave(2, 1), labels=task.labels.repeat_interleave(2, 1), views=2
    )
    only = settings(methods="zero-shot,tip-adapter")
    plain, doubled = (get_method("auto").fit(one, only, [1, 2])[0] for one in (task, twice))
    for one, other in zip(tried_in(plain), tried_in(doubled), strict=True):
        assert other[1:] == pytest.approx(one[1:], rel=1e-3, abs=1e-4)


def test_temperature_and_weights_without_and_with_many_images() -> None:
    truth = torch.tensor([0, 1] * 200)[:, None]
    # right in three of four, so log(3) is the honest difference of two logits
    answers = torch.where(torch.arange(400) % 4 < 3, truth[:, 0], 1 - truth[:, 0])
    logits = 10 * torch.nn.functional.one_hot(answers, 2).float()
    honest = 10 / torch.log(torch.tensor(3.0))
    assert fitted_temperature(logits, truth, 1.0, 5.0, 1) == pytest.approx(float(honest), rel=0.1)
    assert fitted_temperature(logits[:0], truth[:0], 3.0, 0.5, 1) == 3.0
    even, worse = torch.full((400,), 0.5).log(), torch.full((400,), 0.2).log()
    prior = torch.tensor([0.4, 0.6])
    assert mixture_weights(torch.stack([even, even]), prior, 8.0, 1).tolist() == pytest.approx([0.4, 0.6], abs=1e-4)
    assert mixture_weights(torch.stack([even, worse]), prior, 8.0, 1)[0] > 0.9
    tried = choose({}, truth[:, 0], {"a": Prior(0.3, 2.0, 0.7), "b": Prior(0.7, 1.0, 0.6)}, AutoSettings())
    assert [one.weight for one in tried] == [1.0, 0.0]
    assert pruned(torch.tensor([0.49, 0.01, 0.5])) == pytest.approx([0.495, 0.0, 0.505], abs=1e-3)


def test_the_budget_leaves_out_what_is_dear(tiny: Backbone) -> None:
    task = task_of(tiny)
    every = settings(methods="zero-shot,biomedcoop,linear-probe")
    assert candidates(task, every) == (["zero-shot", "biomedcoop", "linear-probe"], [])
    small = replace(every, budget=cost("biomedcoop", task) / 2)
    assert candidates(task, small) == (["zero-shot", "linear-probe"], ["biomedcoop"])
    method = get_method("auto")
    tried = method.tried(method.fit(task, small, [1, 2])[0])
    assert [one["method"] for one in tried if one["temperature"] == 0] == ["biomedcoop"]
    assert mixture_line(tried).endswith(
        "Not tried, because the budget does not allow it: biomedcoop (it limits the methods that train through the text encoder, "
        "by their estimated time)."
    )


def test_faulty_candidates_are_refused() -> None:
    with pytest.raises(UserError, match="no candidate 'liner-probe'; did you mean linear-probe"):
        settings(methods="zero-shot,liner-probe")
    with pytest.raises(UserError, match="no candidate 'auto'"):
        settings(methods="auto")
    with pytest.raises(UserError, match="no candidate is named"):
        settings(methods=" , ")
