"""Batches, schedule and optimiser: what a run gets must not depend on the runs beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from biomedcoop.backbones import load_backbone
from biomedcoop.errors import UserError
from biomedcoop.methods import Task
from biomedcoop.methods.biomedcoop import BiomedCoOp, BiomedCoOpSettings
from biomedcoop.methods.context import ClassPrompts
from biomedcoop.methods.training import (
    SGD,
    WARMUP_LR,
    AdamW,
    batches,
    learning_rate,
    reporter,
    sgd,
    shortened,
    steps_in,
)

Schedule = list[tuple[torch.Tensor, float]]


def schedule_of(*arguments: object) -> Schedule:
    return list(batches(*arguments))  # type: ignore[arg-type]


# -- batches


@pytest.mark.parametrize(
    ("n", "size", "per_epoch", "in_batch"),
    [
        (12, 4, 3, 4),
        (15, 4, 3, 4),  # the incomplete last batch is dropped
        (4, 4, 1, 4),
        (3, 4, 1, 3),  # unless it is the only one
        (1, 32, 1, 1),
        (5, 1, 5, 1),
    ],
)
def test_batches_of_an_epoch(n: int, size: int, per_epoch: int, in_batch: int) -> None:
    epochs = 3
    drawn = schedule_of(n, size, epochs, 0.1, [7, 8])
    assert len(drawn) == epochs * per_epoch == steps_in(n, size, epochs)
    for epoch in range(epochs):
        part = drawn[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert {rate for _, rate in part} == {learning_rate(epoch, epochs, 0.1)}
        indices = torch.cat([index for index, _ in part], dim=1)
        assert indices.shape == (2, per_epoch * in_batch)
        for row in indices.tolist():
            assert len(set(row)) == len(row)  # no image twice in an epoch
            assert set(row) <= set(range(n))


def test_every_image_has_its_turn() -> None:
    """The dropped images are others in each epoch."""
    seen = {i for index, _ in schedule_of(7, 4, 20, 0.1, [1]) for i in index[0].tolist()}
    assert seen == set(range(7))


def test_the_order_of_a_seed_does_not_depend_on_company() -> None:
    alone = schedule_of(10, 4, 5, 0.1, [3])
    for seeds in ([3, 1, 2], [1, 2, 3], [3, 3]):
        place = seeds.index(3)
        together = schedule_of(10, 4, 5, 0.1, seeds)
        assert [index[place].tolist() for index, _ in together] == [index[0].tolist() for index, _ in alone]
    assert [index[0].tolist() for index, _ in schedule_of(10, 4, 5, 0.1, [4])] != [i[0].tolist() for i, _ in alone]


def test_views_are_drawn_by_the_seed_and_leave_the_order_alone() -> None:
    plain = schedule_of(10, 4, 30, 0.1, [3, 4])
    viewed = schedule_of(10, 4, 30, 0.1, [3, 4], 5)
    rows = torch.stack([index for index, _ in viewed])  # [S, R, B]
    assert (rows // 5).equal(torch.stack([index for index, _ in plain]))
    drawn = (rows % 5).flatten().bincount(minlength=5) / rows.numel()
    assert drawn.min() > 0.15
    assert not (rows % 5)[:, 0].equal((rows % 5)[:, 1])
    alone = schedule_of(10, 4, 30, 0.1, [4], 5)
    assert torch.stack([index for index, _ in alone])[:, 0].equal(rows[:, 1])


def test_a_view_for_each_epoch() -> None:
    rows = torch.stack([index for index, _ in schedule_of(8, 4, 6, 0.1, [1, 2], 6, True)])
    assert (rows % 6).view(6, -1).unique(dim=1).flatten().tolist() == list(range(6))
    assert (rows // 6).equal(torch.stack([index for index, _ in schedule_of(8, 4, 6, 0.1, [1, 2])]))


def test_epochs_are_shuffled_anew() -> None:
    orders = [tuple(index[0].tolist()) for index, _ in schedule_of(8, 8, 6, 0.1, [1])]
    assert len(set(orders)) == 6


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first = schedule_of(10, 4, 2, 0.1, [1])
    torch.testing.assert_close(torch.rand(3), expected, atol=0, rtol=0)
    torch.manual_seed(99)
    assert all(a.equal(b) for (a, _), (b, _) in zip(first, schedule_of(10, 4, 2, 0.1, [1]), strict=True))


def test_learning_rates() -> None:
    rates = [learning_rate(epoch, 100, 0.0025) for epoch in range(100)]
    assert rates[0] == WARMUP_LR
    assert rates[1] == 0.0025
    assert all(a > b > 0 for a, b in pairwise(rates[1:]))
    assert rates[51] == pytest.approx(0.00125)
    assert learning_rate(0, 1, 0.0025) == WARMUP_LR  # a single epoch is the warm-up
    without, long = ([learning_rate(epoch, 100, 0.0025, n) for epoch in range(100)] for n in (0, 3))
    assert without[:99] == rates[1:]
    assert long == [WARMUP_LR] * 2 + rates[:-2]
    drawn = [rate for _, rate in batches(8, 4, 2, 0.1, [1], warmup=0)]
    assert drawn == [0.1, 0.1, 0.05, 0.05]


# -- the optimiser


def test_momentum_and_weight_decay() -> None:
    """Two steps by hand: v ← 0.9 v + g + w p, p ← p − η v."""
    p = torch.tensor([[2.0]], requires_grad=True)
    none = torch.zeros(1, 1, dtype=torch.int64)
    sgd([p], lambda _: (3 * p).view(1, 1), [(none, 0.1), (none, 0.2)], momentum=0.9, weight_decay=0.01)
    v1 = 3 + 0.01 * 2
    p1 = 2 - 0.1 * v1
    v2 = 0.9 * v1 + 3 + 0.01 * p1
    assert float(p.detach()) == pytest.approx(p1 - 0.2 * v2, rel=1e-6)


def test_optimizers_are_those_of_torch() -> None:
    """Ours keep the rate on the device, so that a step waits for nothing; what they compute is the same."""
    rates = [1e-3, 0.05, 0.02, 0.2]
    for ours, theirs in (
        (lambda p: SGD([p], 0.9, 0.01), lambda p: torch.optim.SGD([p], lr=1, momentum=0.9, weight_decay=0.01)),
        (lambda p: AdamW([p], 1e-4, 0.01), lambda p: torch.optim.AdamW([p], lr=1, eps=1e-4, weight_decay=0.01)),
    ):
        a = torch.randn(5, 3, generator=torch.Generator().manual_seed(1)).double()
        b = a.clone()
        mine, reference = ours(a), theirs(b)
        for step, rate in enumerate(rates):
            gradient = torch.randn(5, 3, generator=torch.Generator().manual_seed(step)).double()
            mine.step([gradient], torch.tensor(rate, dtype=torch.float64))
            b.grad = gradient
            reference.param_groups[0]["lr"] = rate
            reference.step()
            torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


def test_a_long_gradient_is_shortened_run_by_run() -> None:
    """Its direction stays, over all parameters of the run; a shorter one is left alone, and so is none at all."""
    long, short, none = [3.0, 0.0, 4.0], [0.3, 0.0, 0.4], [0.0, 0.0, 0.0]
    parts = torch.tensor([long, short, none]).split([1, 2], dim=1)
    together = torch.cat(shortened(list(parts), 1.0), dim=1)
    torch.testing.assert_close(together, torch.tensor([[0.6, 0.0, 0.8], short, none]))
    p = torch.tensor([[2.0], [2.0]], requires_grad=True)
    slopes = torch.tensor([[8.0], [0.25]])
    sgd([p], lambda _: slopes * p, [(torch.zeros(2, 1, dtype=torch.int64), 0.1)], weight_decay=0.0, max_norm=0.5)
    assert p.detach().flatten().tolist() == pytest.approx([2 - 0.05, 2 - 0.025])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-5)], ids=str)
def test_runs_train_together_as_they_do_alone(
    dtype: torch.dtype, tolerance: float, parity: Path, images: dict[str, np.ndarray]
) -> None:
    """BiomedCoOp's context after 16 steps: equal but for rounding, which double precision tells from a true difference.

    In single precision the tolerance is that of the parity fixtures, whose reruns on other kernels differ by 2.4e-6.
    """
    backbone = load_backbone(parity / "model", dtype=dtype)
    names = json.loads((parity / "classes.json").read_text())
    by_class = json.loads((parity / "prompts.json").read_text())
    settings = BiomedCoOpSettings(epochs=4)
    with torch.no_grad():
        features = backbone.encode_image(torch.from_numpy(images["train_images"][::4])).to(dtype)
        sentences = torch.stack([backbone.encode_text(by_class[name]) for name in names])
    labels = torch.from_numpy(images["train_labels"][::4])
    prompts = ClassPrompts(backbone, names, settings)

    def contexts(seeds: list[int]) -> torch.Tensor:
        task = Task(backbone, names, features.expand(len(seeds), -1, -1), labels.expand(len(seeds), -1), sentences)
        context = prompts.initial_context(seeds).requires_grad_()
        steps = batches(len(labels), settings.batch_size, settings.epochs, settings.lr, seeds)
        BiomedCoOp().train(task, settings, prompts, context, steps, seeds)
        return context.detach()

    together = contexts([5, 6, 7])
    assert together.dtype == dtype
    for row, seed in enumerate([5, 6, 7]):
        torch.testing.assert_close(together[row], contexts([seed])[0], atol=tolerance, rtol=0)
    assert (together[0] - together[1]).abs().max() > 1e-4  # they did go different ways
    assert (together[0] - prompts.initial_context([5])[0]).abs().max() > 1e-3


def test_steps_are_told_with_the_losses_of_each_run() -> None:
    p = torch.tensor([[1.0], [2.0]], requires_grad=True)
    told: list[tuple[int, list[list[float]]]] = []
    index = torch.zeros(2, 1, dtype=torch.int64)
    sgd(
        [p],
        lambda _: torch.cat([p, 10 * p], dim=1),
        [(index, 0.0)] * 2,
        on_step=lambda step, terms: told.append((step, terms.tolist())),
    )
    assert told == [(step, [[1.0, 10.0], [2.0, 20.0]]) for step in (0, 1)]


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_training_that_diverges_is_an_error(bad: float) -> None:
    def explode() -> Iterator[tuple[torch.Tensor, float]]:
        for _ in range(60):
            yield torch.zeros(2, 1, dtype=torch.int64), 1e3

    p = torch.tensor([[1.0], [1.0]], requires_grad=True)
    with pytest.raises(UserError, match=r"training diverged .*; lower the learning rate, e\.g\. settings=\{'lr': "):
        sgd([p], lambda _: p**4, explode())
    p = torch.tensor([[1.0], [1.0]], requires_grad=True)
    one_run = torch.tensor([[bad], [1.0]])  # the other run is fine
    with pytest.raises(UserError, match="training diverged"):
        sgd([p], lambda _: one_run * p, [(torch.zeros(2, 1, dtype=torch.int64), 0.1)])


def test_progress_is_told_at_most_a_hundred_times() -> None:
    assert reporter(None, 10) is None
    for total in (1, 7, 100, 1234):
        told: list[tuple[int, int, str]] = []
        on_step = reporter(lambda *now, told=told: told.append(now), total)
        assert on_step is not None
        for step in range(total):
            on_step(step, torch.tensor([[1.0, 0.5], [2.0, 0.5]]))
        assert len(told) <= 103
        assert told[-1] == (total, total, "loss 2.000")
        assert [done for done, _, _ in told] == sorted({done for done, _, _ in told})
