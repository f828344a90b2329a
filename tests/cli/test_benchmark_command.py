"""``biomedcoop benchmark``: the summary, the exit status, and one line for each mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from biomedcoop.benchmark.protocol import Protocol

if TYPE_CHECKING:
    from tests.conftest import Cli, Refused

TINY = Path(__file__).parents[1] / "parity_a" / "model"


@pytest.fixture
def words(discs: Path, tmp_path: Path) -> list[object]:
    """The words of a small benchmark."""
    protocol = tmp_path / "mine.toml"
    protocol.write_text('format = 1\nkind = "few-shot"\ndatasets = ["scans"]\nmethods = ["zero-shot", "tip-adapter"]\n')
    options = {"out": tmp_path / "out", "data-root": discs.parent, "backbone": TINY, "shots": 1, "jobs": 1}
    return ["benchmark", protocol, *(word for key, value in options.items() for word in (f"--{key}", value))]


def test_runs_are_counted_and_kept(cli: Cli, words: list[object], tmp_path: Path) -> None:
    result = cli(*words)
    assert result.status == 0
    assert "runs: 4 done" in result.out
    assert " s by 1 process; " in result.out
    assert "of the time of the runs was lost between them" in result.out
    assert "runs to compute: 4 in 2 groups" in result.err
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 4
    again = cli(*words, "--json", "--quiet")
    assert (json.loads(again.out)["done"], again.err) == (4, "")


def test_a_missing_dataset_is_said_and_ends_with_status_1(cli: Cli, words: list[object]) -> None:
    result = cli(*words, "--datasets", "scans,lost", "--methods", "zero-shot")
    assert result.status == 1
    assert "runs: 1 done, 1 failed" in result.out
    assert "failed: 1 run of lost: there is no folder or file 'lost' here, and no dataset of that name in" in result.out
    assert "warning: dataset lost: its runs fail: " in result.err


def test_nothing_computed_ends_with_status_1(cli: Cli, words: list[object]) -> None:
    result = cli(*words, "--methods", "tip-adapter", "--shots", "1000", "--quiet")
    assert result.status == 1
    assert "runs: 3 skipped" in result.out
    assert "error: none of the 3 runs could be computed; their reasons stand in " in result.err


def test_a_dry_run_shows_the_cost(cli: Cli, words: list[object], tmp_path: Path) -> None:
    result = cli(*words, "--dry-run")
    assert "runs: 4 to compute" in result.out
    cost = json.loads(cli(*words, "--dry-run", "--json").out)["cost"]
    assert set(cost) == {"images_to_encode", "encoding_seconds", "computing_seconds", "disk_bytes"}
    assert cost["computing_seconds"] > 0
    assert not (tmp_path / "out").exists()


def test_protocols_are_listed(cli: Cli) -> None:
    assert "paper-few-shot" in cli("benchmark", "list").out
    assert "'biomedcoop benchmark show NAME' prints one" in " ".join(cli("benchmark", "list").out.split())
    assert json.loads(cli("benchmark", "list", "--json").out)["quick"]["kind"] == "few-shot"


def test_a_protocol_is_shown_as_a_file_that_runs(cli: Cli, refused: Refused, tmp_path: Path) -> None:
    shown = cli("benchmark", "show", "paper-few-shot").out
    (tmp_path / "mine.toml").write_text(shown)
    assert Protocol.read(tmp_path / "mine.toml") == Protocol.read("paper-few-shot")
    assert "no protocol 'quik' in the package; did you mean quick?" in refused("benchmark", "show", "quik")
    (tmp_path / "mine.toml").write_text("format = ")
    assert "; 'biomedcoop benchmark show quick' prints an example" in refused("benchmark", tmp_path / "mine.toml")


def test_a_protocol_whose_backbone_is_not_here_runs_with_the_shipped_one(
    cli: Cli, refused: Refused, words: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIOMEDCOOP_CACHE", str(tmp_path / "cache"))
    line = refused(*words, "--backbone", "biomedclip", "--dry-run")
    assert "run 'biomedcoop backbones download biomedclip'" in line
    assert line.rstrip().endswith("; or take --backbone mini")
    assert cli(*words, "--backbone", "mini", "--methods", "zero-shot", "--dry-run").status == 0


def test_mistakes_are_one_line(refused: Refused, words: list[object]) -> None:
    assert "no protocol 'quik'; did you mean quick?" in refused("benchmark", "quik")
    assert "seeds: 1 is there twice" in refused(*words, "--seeds", "1,1")
    assert "no method 'cop'" in refused(*words, "--methods", "cop")
    assert "shots='x' must be a whole number" in refused(*words, "--shots", "x")
    assert "'lost'" in refused(*words, "--datasets", "lost")
    assert "Invalid value for '--jobs'" in refused(*words, "--jobs", "0")
