"""Cells are computed once, the dearest first, wherever the work is done."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from biomedcoop.evaluation.study import runner
from biomedcoop.evaluation.study.cells import Cell
from biomedcoop.evaluation.study.executor import LocalProcesses

CELLS = [Cell("x", 1, "x-1", cost=1.0), Cell("x", 2, "x-2", cost=5.0), Cell("y", 1, "y-1", cost=2.0)]


class Here:
    """An executor without processes."""

    def map(self, work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        return map(work, items)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Whose images were asked for before the work began."""
    found: list[tuple[str, str]] = []
    monkeypatch.setattr(runner, "encoded", lambda dataset, backbone: found.append((dataset, backbone)))
    return found


def test_what_is_missing_is_computed_the_dearest_first(tmp_path: Path, asked: list[tuple[str, str]]) -> None:
    done = []

    def compute(dataset: str, key: Any, backbone: str) -> list[list[int]]:
        done.append((dataset, key, backbone))
        return [[key, 0]]

    runner.run_cells(compute, CELLS[1:], "tiny", tmp_path / "work", Here())
    assert done == [("x", 2, "tiny"), ("y", 1, "tiny")]
    assert json.loads((tmp_path / "work" / "x-2.json").read_text()) == [[2, 0]]
    runner.run_cells(compute, CELLS, "tiny", tmp_path / "work", Here())
    assert done[2:] == [("x", 1, "tiny")]
    assert asked == [("x", "tiny"), ("y", "tiny"), ("x", "tiny")], "only of datasets that have work"


def test_a_failed_cell_leaves_no_file(tmp_path: Path, asked: list[tuple[str, str]]) -> None:
    def compute(dataset: str, key: Any, backbone: str) -> list[list[int]]:
        raise ValueError("no such key")

    with pytest.raises(ValueError, match="no such key"):
        runner.run_cells(compute, CELLS, "tiny", tmp_path, Here())
    assert not list(tmp_path.iterdir())


def test_local_processes_do_all_the_work() -> None:
    assert sorted(LocalProcesses(2).map(abs, [-3, 1, -2])) == [1, 2, 3]
