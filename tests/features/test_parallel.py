"""Work in threads: its order, its end, and passes inside passes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import torch

from biomedcoop.features.parallel import passes_on_every_core, run_ahead

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
