"""The display of long work: what a terminal, a notebook, a pipe and a log file show, and that short work shows nothing."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import biomedcoop as bc
from biomedcoop import UserError, display
from biomedcoop.backbones.base import Backbone
from biomedcoop.display import shown


class Clock:
    """The time in seconds, moved by the test."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(display, "time", clock)
    return clock


def work(
    clock: Clock, what: str, seconds: float, total: int = 10, known: bool = True
) -> list[tuple[float, str, int, int]]:
    """``total`` reports in equal steps of time."""
    return [(seconds / total, what, done, total if known else 0) for done in range(1, total + 1)]


def told(stream: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch, *stages: list[tuple[float, str, int, int]]) -> str:
    """What is written to stderr by stages of work."""
    monkeypatch.setattr(sys, "stderr", stream)
    with shown(None) as tell:
        for stage in stages:
            for pause, what, done, total in stage:
                clock.now += pause
                tell(what, done, total)
    return str(stream.getvalue())


def test_short_work_shows_nothing(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    short = work(clock, "encoding", 1.9), [(0.0, "encoding", 0, 0)]
    assert told(io.StringIO(), clock, monkeypatch, *short) == ""


def test_a_pipe_gets_a_line_now_and_then_and_at_the_end_of_a_long_stage(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = work(clock, "encoding", 40, 40), work(clock, "training (loss 0.5)", 1.5), work(clock, "testing", 5, 5)
    assert told(io.StringIO(), clock, monkeypatch, *stages).splitlines() == [
        "encoding: 15 of 40, 0:14, about 0:25 left",
        "encoding: 30 of 40, 0:29, about 0:10 left",
        "encoding: 40 of 40, 0:39",
        "testing: 5 of 5, 0:04",
    ]


def test_a_stage_that_starts_again_counts_anew(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    twice = work(clock, "training (loss 1)", 5, 5), work(clock, "training (loss 1)", 5, 5)
    assert told(io.StringIO(), clock, monkeypatch, *twice).splitlines() == ["training (loss 1): 5 of 5, 0:04"] * 2


def test_an_unknown_total_is_left_out(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(io.StringIO(), clock, monkeypatch, work(clock, "predicting", 4000, 4, known=False)).splitlines() == [
        "predicting: 1, 0:00",
        "predicting: 2, 16:40",
        "predicting: 3, 33:20",
        "predicting: 4, 50:00",
    ]


def test_a_notebook_rewrites_one_line(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    class OutStream(io.StringIO):
        __module__ = "ipykernel.iostream"

    stages = work(clock, "encoding", 10), work(clock, "training", 3.0)[:-1]
    *lines, end = told(OutStream(), clock, monkeypatch, *stages).split("\n")
    assert end == ""
    first, second = ([state.strip() for state in line.split("\r")[1:]] for line in lines)
    assert first[0] == "encoding: 2 of 10, 0:01, about 0:08 left"
    assert first[-1] == "encoding: 10 of 10, 0:09"
    assert second[-1].startswith("training: 8 of 10")  # it did not end, and the next line starts anew


def test_a_callback_silence_and_anything_else(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[str, int, int]] = []
    with shown(lambda *report: seen.append(report)) as tell:
        tell("training", 1, 2)
    assert seen == [("training", 1, 2)]
    with shown(False) as tell:
        tell("training", 1, 2)
    for wrong in (True, 3, "bar"):
        with pytest.raises(UserError, match="must be a function, None to show long work, or False"), shown(wrong):  # type: ignore[arg-type]
            pass
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("columns", "term"), [(80, "xterm"), (200, "xterm"), (80, "dumb")])
def test_a_terminal_shows_a_bar_that_fits(columns: int, term: str) -> None:
    script = """
from biomedcoop import display
display.LONG = 0
with display.shown(None) as tell:
    for done in range(1, 301):
        tell("encoding training images", done, 300)
    for done in range(1, 3001):
        tell("training tip-adapter-f (loss 0.123)", done, 3000)
"""
    there, here = pty.openpty()
    environment = {**os.environ, "TERM": term, "COLUMNS": str(columns)}
    subprocess.run([sys.executable, "-c", script], stderr=here, check=True, env=environment)
    os.close(here)
    text = b""
    try:
        while part := os.read(there, 65536):
            text += part
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(there)
    last = text.decode().split("\x1b[2K")[-1].replace("\x1b[1A", "")
    assert ("3000/3000" if term == "xterm" else "3000 of 3000") in last
    assert ("\x1b[" in text.decode()) == (term == "xterm")


def test_the_public_functions_show_long_work_unless_told_not_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], discs: Path, tiny: Backbone, tmp_path: Path
) -> None:
    monkeypatch.setattr(display, "LONG", 0)
    monkeypatch.setattr(display, "LINE_EVERY", 0)
    monkeypatch.setenv("BIOMEDCOOP_CACHE", str(tmp_path))
    data, images = bc.load_dataset(discs), sorted(discs.rglob("test/*/*.png"))

    def said(progress: Any) -> set[str]:
        clf = bc.fit(data, "biomedcoop", tiny, shots=2, settings={"epochs": 1}, progress=progress)
        bc.evaluate(clf, data, n_bootstrap=40, progress=progress)
        clf.predict(images, progress=progress)
        clf.predict_proba((image for image in images), progress=progress)
        return {line.split(" (")[0].split(", ")[0] for line in capsys.readouterr().err.splitlines()}

    assert said(False) == set()
    monkeypatch.setenv("BIOMEDCOOP_CACHE", str(tmp_path / "cold"))
    lines = said(None)
    for line in ("encoding training images: 6 of 6", "training biomedcoop", "encoding test images: 30 of 30"):
        assert line in lines
    assert {"predicting: 30 of 30", "predicting: 30"} <= lines
