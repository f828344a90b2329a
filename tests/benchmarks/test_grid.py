"""The grid of all methods and the growth of cost: what is counted, and that exponents are those of the seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.speed import grid
from biomedcoop.backbones import load_backbone


def test_runs_are_counted() -> None:
    """A method that learns from no image has one run, whatever the seeds."""
    assert grid.runs_in({"coop": {"1": 0.1, "16": 0.2}, "zero-shot": {"0": 0.0}}) == 7


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5])
def test_the_exponent_of_a_curve(power: float) -> None:
    seconds = [0.3 * size**power for size in grid.AXES["runs"]]
    assert grid.Curve("runs", "fit", seconds, []).exponent == pytest.approx(power, abs=1e-9)


def test_the_floor_grows_with_the_prompts_of_a_step(parity: Path) -> None:
    backbone = load_backbone(parity / "model")
    one = grid.step_operations(backbone, 4, 1)
    assert one > 0
    assert grid.step_operations(backbone, 4, 3) == pytest.approx(3 * one, rel=0.01)
    assert grid.step_operations(backbone, 8, 1) == pytest.approx(2 * one, rel=0.01)
    assert len(set(grid.names_of(32))) == 32
