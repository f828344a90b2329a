"""How fits use cores: small ones on one each, large ones together, with the numbers of a fit that knows nothing of cores."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from biomedcoop.backbones.base import Backbone
from biomedcoop.methods import Task, get_method, on_cores
from biomedcoop.methods.on_cores import Cores, cores_for, fit_on_cores

NAMES = ["cyst", "stone", "tumor"]


def task(backbone: Backbone, runs: int) -> Task:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(runs, 12, backbone.embed_dim, generator=generator)
    labels = torch.arange(3).repeat_interleave(4).repeat(runs, 1)
    sentences = torch.randn(3, 8, backbone.embed_dim, generator=generator)
    return Task(backbone, NAMES, features, labels, sentences, features[:, :6], labels[:, ::2])


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_cores, "torch_cores", lambda: 8)
    monkeypatch.setattr("biomedcoop.threads.torch_cores", lambda: 8)


@pytest.fixture
def two_torch_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["biomedcoop", "clip-adapter", "cocoop"])
def test_small_work_runs_on_one_core_each(tiny: Backbone, eight_cores: None, name: str) -> None:
    method = get_method(name)
    found = [cores_for(method, task(tiny, runs), method.settings({})) for runs in (1, 3, 10)]
    assert found == [(1, 1), (1, 1), (3, 1)]  # at most four at a time


def test_large_work_shares_its_operations(tiny: Backbone, eight_cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    method, settings = get_method("biomedcoop"), get_method("biomedcoop").settings({})
    products = method.step_products(task(tiny, 2), settings)
    weights = sum(
        p.numel()
        for n, p in tiny.towers.named_parameters()
        if n.startswith("text.") and p.dim() == 2 and "embed" not in n
    )
    assert weights > 0
    assert products % (2 * 3 * weights) == 0  # there and back, three classes, so many tokens
    monkeypatch.setattr("biomedcoop.threads.SHARED_FROM", products)
    assert cores_for(method, task(tiny, 2), settings) == (2, 8)
    assert cores_for(get_method("clip-adapter"), task(tiny, 2), settings) == (1, 1)
    cocoop = get_method("cocoop")
    monkeypatch.setattr("biomedcoop.threads.SHARED_FROM", 4 * products)
    assert cores_for(cocoop, task(tiny, 2), cocoop.settings({"batch_size": 4})) == (
        2,
        8,
    )  # every image has prompts of its own
    assert cores_for(cocoop, task(tiny, 2), cocoop.settings({"batch_size": 3})) == (1, 1)


def test_scikit_learn_stays_in_one_thread_and_leaves_blas_as_it_was(tiny: Backbone, eight_cores: None) -> None:
    from threadpoolctl import threadpool_info

    def numbers() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    method = get_method("linear-probe")
    settings = method.settings({"bisections": 1})
    assert cores_for(method, task(tiny, 5), settings) == (5, 1)
    fit_on_cores(method, task(tiny, 1), settings, [1], None, Cores(1, 1))  # loads the libraries
    before, inside = numbers(), []
    fit_on_cores(method, task(tiny, 2), settings, [1, 2], lambda *_: inside.append(numbers()), Cores(2, 1))
    assert inside == [before, before]  # between two fits


@pytest.mark.parametrize("name", ["biomedcoop", "tip-adapter-f", "lp++"])
def test_runs_side_by_side_are_the_runs_alone(tiny: Backbone, name: str) -> None:
    method, whole = get_method(name), task(tiny, 5)
    settings = method.settings({} if name == "lp++" else {"epochs": 2})
    side_by_side = fit_on_cores(method, whole, settings, range(5), None, Cores(2, 1))
    again = fit_on_cores(method, whole, settings, range(5), None, Cores(2, 1))
    together = method.fit(whole, settings, range(5))
    assert len(side_by_side) == 5
    for one, same, other in zip(side_by_side, again, together, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            assert torch.equal(one[key], same[key])
            torch.testing.assert_close(one[key], other[key], rtol=1e-4, atol=1e-5)


def test_a_small_run_has_the_same_bits_whatever_the_cores(tiny: Backbone, two_torch_threads: None) -> None:
    method, one = get_method("biomedcoop"), task(tiny, 1)
    settings = method.settings({"epochs": 2})
    (on_two,) = fit_on_cores(method, one, settings, [1], None, cores_for(method, one, settings))
    torch.set_num_threads(1)
    (on_one,) = fit_on_cores(method, one, settings, [1], None, cores_for(method, one, settings))
    assert all(torch.equal(on_two[key], on_one[key]) for key in on_two)


def test_progress_is_told_once_and_an_interruption_ends_all(tiny: Backbone) -> None:
    method = get_method("coop")
    told: list[int] = []
    fit_on_cores(
        method, task(tiny, 3), method.settings({"epochs": 4}), range(3), lambda done, *_: told.append(done), Cores(1, 1)
    )
    assert told == [1, 2, 3, 4]

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # a million epochs of the other runs would take an hour
        fit_on_cores(method, task(tiny, 3), method.settings({"epochs": 20_000}), range(3), interrupt, Cores(1, 1))
