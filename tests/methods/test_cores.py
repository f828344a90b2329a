"""How many cores a fit uses: one for small work, all for large, and the bits of a small run do not depend on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from biomedcoop import threads
from biomedcoop.backbones.base import Backbone
from biomedcoop.methods import Task, get_method

NAMES = ["cyst", "stone", "tumor"]


def task(backbone: Backbone, runs: int) -> Task:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(runs, 12, backbone.embed_dim, generator=generator)
    labels = torch.arange(3).repeat_interleave(4).repeat(runs, 1)
    sentences = torch.randn(3, 8, backbone.embed_dim, generator=generator)
    return Task(backbone, NAMES, features, labels, sentences, features[:, :6], labels[:, ::2])


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "torch_cores", lambda: 8)


@pytest.fixture
def two_torch_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("name", "runs", "found"),
    [
        ("biomedcoop", 1, 1),
        ("biomedcoop", 3, 3),
        ("biomedcoop", 10, 8),
        ("cocoop", 1, 1),
        ("clip-adapter", 10, 1),
        ("linear-probe", 10, 1),
    ],
)
def test_a_small_run_has_one_core_and_several_have_one_each(
    tiny: Backbone, eight_cores: None, name: str, runs: int, found: int
) -> None:
    method = get_method(name)
    assert method.threads(task(tiny, runs), method.settings({})) == found


def test_a_large_step_is_shared(tiny: Backbone, eight_cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    method, settings = get_method("biomedcoop"), get_method("biomedcoop").settings({})
    macs = method.step_macs(task(tiny, 1), settings)
    weights = sum(
        p.numel()
        for n, p in tiny.towers.named_parameters()
        if n.startswith("text.") and p.dim() == 2 and "embed" not in n
    )
    assert weights > 0
    assert macs % (2 * 3 * weights) == 0  # there and back, three classes, so many tokens
    monkeypatch.setattr(threads, "PER_CORE", macs // 3)
    assert method.threads(task(tiny, 1), settings) == 3
    assert method.threads(task(tiny, 2), settings) == 6
    assert get_method("clip-adapter").threads(task(tiny, 1), settings) == 1
    cocoop = get_method("cocoop")
    assert cocoop.threads(task(tiny, 1), cocoop.settings({"batch_size": 2})) == 6  # every image has prompts of its own


def test_scikit_learn_uses_one_core_and_leaves_blas_as_it_was(tiny: Backbone) -> None:
    from threadpoolctl import threadpool_info

    def numbers() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    method = get_method("linear-probe")
    settings = method.settings({"bisections": 1})
    method.fit(task(tiny, 1), settings, [1])  # loads the libraries
    before, between = numbers(), []
    method.fit(task(tiny, 2), settings, [1, 2], lambda *_: between.append(numbers()))
    assert between == [before, before]


def test_a_small_run_has_the_same_bits_whatever_the_cores(tiny: Backbone, two_torch_threads: None) -> None:
    method, one = get_method("biomedcoop"), task(tiny, 1)
    settings = method.settings({"epochs": 2})
    with threads.torch_threads(method.threads(one, settings)):
        (on_two,) = method.fit(one, settings, [1])
    torch.set_num_threads(1)
    with threads.torch_threads(method.threads(one, settings)):
        (on_one,) = method.fit(one, settings, [1])
    assert all(torch.equal(on_two[key], on_one[key]) for key in on_two)
