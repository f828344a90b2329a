"""The cost that is said before the work grows with the work."""

from __future__ import annotations

from pathlib import Path

from biomedcoop.benchmark.compute import Work
from biomedcoop.benchmark.estimate import Cost, seconds_of
from biomedcoop.benchmark.plan import groups_of
from biomedcoop.benchmark.sources import find_sources

from .conftest import protocol


def test_more_images_and_epochs_take_longer(folder: Path) -> None:
    asked = protocol(shots=[1, 16], recipe="paper")
    work = Work(asked, find_sources(asked, folder, lambda *_: None))
    seconds = seconds_of(work, list(groups_of(asked, work.sources)))
    short, long = (seconds[f"few-shot/scans/model/slow/{shots}"] for shots in (1, 16))
    assert 0 < short <= long < seconds["few-shot/scans/model/coop/16"]


def test_the_lines_say_what_is_left() -> None:
    lines = Cost(60, {"a": 100.0, "b": 20.0}, 1200, 90.0, 5_000_000).lines(jobs=2)
    assert lines == [
        "images to encode: 1,200, about 1.5 min",
        "runs to compute: 60 in 2 groups, about 1.0 min with 2 processes",
        "disk: about 5 MB of features and results",
    ]
