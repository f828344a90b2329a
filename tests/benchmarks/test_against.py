"""Two backbones on the same images: differences are paired, and their table has the means of complete groups."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.command import start
from benchmarks.datasets import GROUPS
from benchmarks.mini import __main__ as command
from benchmarks.mini.accuracy import Row
from benchmarks.mini.against import AGAINST, COMPARED, against, against_table
from biomedcoop.backbones.base import Backbone
from biomedcoop.data.dataset import Dataset

N = 40


def row(name: str, group: str, right: float) -> Row:
    """A dataset on which the first share of the images is right in every column."""
    keys = tuple(f"{i}.png" for i in range(N))
    images = np.zeros((N, 4, 4), dtype=np.uint8)
    data = Dataset(name, ("cyst", "stone"), images, keys, np.arange(N) % 2, np.array(["test"] * N))
    scores = {key: (np.arange(N) < right * N).astype(float) for key in COMPARED}
    return Row(name, group, data, np.zeros((N, 2), dtype=np.float32), scores, {}, {}, {})


@pytest.fixture
def other_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other backbone is right on the first half, and has no sentences for busi."""

    def scores(backbone: Backbone, name: str, *_: Any) -> tuple[Any, dict[str, Any], Any]:
        found = dict.fromkeys(COMPARED, (np.arange(N) < N / 2).astype(float))
        return None, {k: v for k, v in found.items() if (name, k) != ("busi", "sentences")}, None

    monkeypatch.setattr("benchmarks.mini.against.scores_of", scores)
    monkeypatch.setattr("benchmarks.mini.against.training_and", lambda name, split: name)


@pytest.mark.usefixtures("other_is_right")
def test_differences_are_paired(tiny: Backbone) -> None:
    same, better = against(tiny, [row("btmri", "seen", 0.5), row("busi", "unseen", 0.75)], "test", {})
    assert {(e.value, e.low, e.high) for e in same.estimates.values()} == {(0.0, 0.0, 0.0)}, "equal image by image"
    assert set(better.estimates) == set(AGAINST) - {"gain_sentences"}
    gain = better.estimates["gain_probe_16"]
    assert gain.value == 0.25
    assert gain.low is not None
    assert gain.high is not None
    assert 0.0 < gain.low < 0.25 < gain.high < 0.45, "of 10 images of 40"


@pytest.mark.usefixtures("other_is_right")
def test_the_table_has_the_mean_of_a_complete_group_only(tiny: Backbone) -> None:
    rights = dict(zip(GROUPS["unseen"], (0.5, 0.6, 0.7, 0.8, 0.9), strict=True))
    rows = [row("btmri", "seen", 0.25), *(row(name, "unseen", right) for name, right in rights.items())]
    table = against_table(against(tiny, rows, "val", {}), tiny, tiny, "val")
    assert table.columns == ["group", "dataset", "probe, 16", "probe, all", "class names", "unused sentences"]
    assert [cells[:2] for cells in table.rows] == [
        ["seen", "btmri"],
        *(["unseen", name] for name in rights),
        ["unseen", "**mean**"],
    ]
    assert str(table.rows[0][2]).startswith("−25.0 (−")
    assert str(table.rows[-1][2]).startswith("+20.0 (+")
    assert str(table.rows[-1][-1]).startswith("+25.0 (+"), "over the datasets that have the column"
    assert "val images" in table.notes[0]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--learned"], "--learned needs --cache or --json"),
        (["--against", "{model}"], "has the same weights as"),
        (["--against", "nowhere"], "no backbone 'nowhere'"),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(
    words: list[str],
    line: str,
    parity: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command, "measure", lambda *_: pytest.fail("began"))
    model = str(parity / "model")
    monkeypatch.setattr(sys, "argv", ["mini", "--backbone", model, *(w.format(model=model) for w in words)])
    with pytest.raises(SystemExit) as ended:
        start(command.main)
    assert ended.value.code == 2
    assert line in capsys.readouterr().err.splitlines()[-1]
