"""The script for a GPU, dry on the CPU: every part gives its rows, and one that takes too long is ended."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.speed.gpu import PARTS, Row, Setting, main, measured, steps, table


def test_a_step_is_measured(parity: Path, tmp_path: Path) -> None:
    rows = list(steps(Setting(tmp_path, parity / "model", "cpu", dry=True)))
    assert [row.what.partition(" together")[0] for row in rows] == ["step, 1", "step, 6"] * 2
    assert all(row.published and row.published > 0 for row in rows)


def test_a_part_that_takes_too_long_is_ended(parity: Path, tmp_path: Path) -> None:
    assert measured("study", Setting(tmp_path, parity / "model", "cpu", dry=True), 0.5) == ([], "ended after its 0 s")


def test_the_table_says_how_many_times_as_fast() -> None:
    rows = [Row("step", "ms", 2.0, 30.0), Row("encoding", "images/s", 500.0, 100.0), Row("study", "s", 60.0)]
    assert [row[4] for row in table(rows, []).rows] == ["15.0", "5.0", ""]


def test_the_shares_are_the_whole_time() -> None:
    assert sum(share for share, _ in PARTS.values()) == pytest.approx(1)


@pytest.mark.slow
def test_the_whole_script(parity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["gpu", "--device", "cpu", "--dry", "--backbone", str(parity / "model"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", words)
    main()
    content = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert len(content["rows"]) == 11
    assert content["notes"][1:] == []
    assert "| study of 6 runs | s |" in (tmp_path / "out" / "gpu.md").read_text()
