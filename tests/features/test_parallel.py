"""Work in threads: its order, its end, and passes inside passes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import torch

from biomedcoop.features import parallel
from biomedcoop.features.parallel import passes_on_every_core, run_ahead
from biomedcoop.threads import torch_threads

CPU = torch.device("cpu")


def slow_first(number: int) -> int:
    time.sleep(0.02 * (number == 0))
    return number


def broken_after(count: int) -> Iterator[int]:
    yield from range(count)
    raise ValueError("no more")


@pytest.mark.parametrize("run", [run_ahead, lambda f, items: passes_on_every_core(f, items, CPU)])
def test_results_are_in_order_and_an_error_of_the_items_comes_after_them(run) -> None:
    assert list(run(slow_first, range(6))) == list(range(6))
    found = []
    with pytest.raises(ValueError, match="no more"):
        found.extend(result for result in run(found.append, broken_after(4)))
    assert sorted(number for number in found if number is not None) == list(range(4))


def test_no_pass_goes_on_after_the_end() -> None:
    begun, done = [], []

    def work(number: int) -> None:
        begun.append(number)
        time.sleep(0.05)
        done.append(number)

    with closing(passes_on_every_core(work, range(20), CPU)) as passes:
        next(passes)
    assert sorted(begun) == sorted(done)
    assert len(done) < 20


def test_the_threads_stay_and_keep_their_number_of_torch_threads() -> None:
    def which(_: int) -> tuple[int, int]:
        time.sleep(0.01)
        return threading.get_ident(), torch.get_num_threads()

    before = torch.get_num_threads()
    first, second = (set(passes_on_every_core(which, range(8), CPU)) for _ in range(2))
    assert first == second
    assert {number for _, number in first} == {1}
    assert torch.get_num_threads() == before


def test_passes_inside_passes_come_to_an_end() -> None:
    def inner(number: int) -> int:
        return number + 1

    def outer(number: int) -> int:
        time.sleep(0.01)  # so that every staying thread is busy
        return sum(passes_on_every_core(inner, range(number), CPU))

    assert list(passes_on_every_core(outer, range(8), CPU)) == [n * (n + 1) // 2 for n in range(8)]


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "torch_cores", lambda: 2)


def threads_and_number(number: int) -> tuple[int, int, int]:
    return threading.get_ident(), torch.get_num_threads(), number


@pytest.mark.usefixtures("two_cores")
def test_cores_share_a_pass_that_is_the_only_one() -> None:
    first, second = (list(passes_on_every_core(threads_and_number, [7], CPU, shared=True)) for _ in range(2))
    assert first == second
    assert [found[1:] for found in first] == [(2, 7)]
    assert {found[1] for found in passes_on_every_core(threads_and_number, [1, 2], CPU, shared=True)} == {1}
    assert {found[1] for found in passes_on_every_core(threads_and_number, [1], CPU)} == {1}


def test_a_caller_that_has_one_core_keeps_to_it() -> None:
    with torch_threads(1):
        assert [found[1] for found in passes_on_every_core(threads_and_number, [1], CPU, shared=True)] == [1]


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_looking_for_a_second_batch_keeps_results_before_an_error(count: int) -> None:
    found = []
    with pytest.raises(ValueError, match="no more"):
        found.extend(passes_on_every_core(lambda number: number, broken_after(count), CPU, shared=True))
    assert found == list(range(count))


@pytest.mark.usefixtures("two_cores")
def test_a_second_caller_does_not_wait_for_the_sharing_cores() -> None:
    inside, go = threading.Event(), threading.Event()

    def held(number: int) -> tuple[int, int, int]:
        inside.set()
        assert go.wait(30)
        return threads_and_number(number)

    results: list[tuple[int, int, int]] = []
    first = threading.Thread(target=lambda: results.extend(passes_on_every_core(held, [1], CPU, shared=True)))
    first.start()
    assert inside.wait(30)
    other = list(passes_on_every_core(threads_and_number, [2], CPU, shared=True))
    go.set()
    first.join()
    assert other[0][1:] == (1, 2)
    assert results[0][1:] == (2, 1)
