"""The cost that is said before the work grows with the work."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from biomedcoop.benchmark.compute import Work
from biomedcoop.benchmark.estimate import OVERHEAD, Cost, _random_task, measure_speeds, read_speeds, seconds_of
from biomedcoop.benchmark.plan import groups_of
from biomedcoop.benchmark.sources import find_sources

from .conftest import Here, Run, protocol


def test_more_images_and_epochs_take_longer(folder: Path) -> None:
    asked = protocol(shots=[1, 16], recipe="paper")
    work = Work(asked, find_sources(asked, folder, lambda *_: None))
    groups = list(groups_of(asked, work.sources))
    speeds = measure_speeds(work, groups, {})
    seconds = {group.id: seconds_of(work, group, speeds) for group in groups}
    short, long = (seconds[f"few-shot/scans/model/slow/{shots}"] for shots in (1, 16))
    assert 0 < short <= long < seconds["few-shot/scans/model/coop/16"]


def test_a_fit_that_chooses_is_measured_with_its_choosing(folder: Path) -> None:
    asked = protocol(methods=["auto", "krr", "coop"], shots=[8], recipe="general")
    work = Work(asked, find_sources(asked, folder, lambda *_: None))
    for group in groups_of(asked, work.sources):
        task = _random_task(work.load(group.backbone), group, 3, 24)
        found = None if task.folds is None else [torch.bincount(of_run).tolist() for of_run in task.folds]
        runs = len(group.seeds)
        assert found == {"auto": [[6, 6, 6, 3, 3]] * runs, "krr": [[1] * 24] * runs, "coop": None}[group.row.method]


def test_the_lines_say_what_is_left() -> None:
    cost = Cost(60, {"a": 100.0, "b": 20.0}, 1200, 90.0, 5_000_000, {})
    lines = cost.lines(jobs=2)
    assert lines == [
        "images to encode: 1,200, about 1.5 min",
        "runs to compute: 60 in 2 groups, about 1.0 min with 2 processes",
        "disk: about 5 MB of features and results",
    ]
    assert cost.to_dict(jobs=2) == {
        "images_to_encode": 1200,
        "encoding_seconds": 90.0,
        "computing_seconds": 60.0,
        "disk_bytes": 5_000_000,
    }
    one = Cost(1, {"a": 100.0}, 0, None, 5_000_000, {}).lines(jobs=1)
    assert one[0] == "runs to compute: 1 in 1 group, about 1.7 min with 1 process"


def test_a_speed_that_is_known_is_not_measured_again(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = protocol(methods=["tip-adapter", "coop"], shots=[1])
    with pytest.raises(KeyboardInterrupt):
        run(asked, executor=Here(1))
    assert set(read_speeds(tmp_path / "out")) == {"model/tip-adapter", "model/coop"}
    monkeypatch.setattr("biomedcoop.benchmark.estimate._measure", lambda *_: pytest.fail("measured again"))
    cost = run(asked, dry_run=True).cost
    assert cost is not None
    assert list(cost.seconds) == ["few-shot/scans/model/tip-adapter/1"]
    assert cost.seconds["few-shot/scans/model/tip-adapter/1"] > OVERHEAD
    assert run(asked).done == 4


@pytest.mark.parametrize("content", ["{", "[]", '{"model/coop": {"speed": 1}}'])
def test_a_damaged_file_of_speeds_is_measured_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / "speeds.json").write_text(content)
    assert read_speeds(tmp_path) == {}
