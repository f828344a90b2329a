"""The whole run that is measured: what is written for it, where its time goes, and what is made of the measured works."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.speed.floors import Costs, Finished, Limits
from benchmarks.speed.inputs import class_names, write_jpegs
from benchmarks.speed.one_run import (
    PARTS,
    PUBLISHED_STEPS,
    SENTENCE_TOKENS,
    Variant,
    floors,
    parts_of,
    published_table,
    runs_table,
    train,
    write_sentences,
)
from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.open_clip import OpenClipBackbone


def test_a_recipe_may_have_settings_of_its_own() -> None:
    plain, changed = Variant.parse("paper"), Variant.parse("general:epochs=2,batch_size=8")
    assert plain.options() == ["--recipe", "paper"]
    assert changed.options() == ["--recipe", "general", "--set", "epochs=2", "--set", "batch_size=8"]
    assert (plain.steps(), changed.steps()) == (PUBLISHED_STEPS, 2 * 8) == (1600, 16)


def test_sentences_are_different_and_of_one_length(tmp_path: Path) -> None:
    write_sentences(tmp_path / "sentences.json", class_names(2, 3))
    table = json.loads((tmp_path / "sentences.json").read_text())
    sentences = [sentence for own in table.values() for sentence in own]
    assert len(set(sentences)) == 100
    assert {len(sentence.split()) + 2 for sentence in sentences} == {SENTENCE_TOKENS}


@pytest.mark.slow
def test_a_run_of_the_command_line_and_its_parts(tmp_path: Path, parity: Path) -> None:
    names = class_names(4, 3)
    write_jpegs(tmp_path / "scans", {"train": 16, "test": 2}, names, 48, 40)
    write_sentences(tmp_path / "sentences.json", names, count=2)
    variant, profile = Variant.parse("paper:epochs=1"), tmp_path / "profile"
    done = train(tmp_path, parity / "model", variant, tmp_path / "cache", profile=profile)
    parts = parts_of(profile)
    assert list(parts)[:-1] == list(PARTS)
    assert min(parts.values()) > 0
    assert sum(parts.values()) < done.seconds
    assert 2**26 < done.memory < 2**34
    assert (tmp_path / "run" / "metrics.json").is_file()


def test_a_warm_run_has_no_floor_for_what_is_stored(tiny: Backbone) -> None:
    assert isinstance(tiny, OpenClipBackbone)
    least = floors(Costs(tiny), Limits({(1, 1, 1): 1e9}, 1e9), 1600, 2.0)
    assert least["train"] == pytest.approx(
        1600 / 800 * floors(Costs(tiny), Limits({(1, 1, 1): 1e9}, 1e9), 800, 2.0)["train"]
    )
    paper = Variant("paper")
    runs = {(paper, "cold"): [Finished(50.0, 2**30)], (paper, "warm"): [Finished(25.0, 2**30)] * 2}
    _, _, published, cold, warm, fresh = runs_table(1000.0, runs, {paper: least}, 200.0).markdown().splitlines()
    assert "| 1000 |" in published
    assert cold.startswith("| `paper`, cold store | 50.0 | 20.0 | 20 |")
    assert warm.startswith("| `paper`, warm store | 25.0 | 40.0 | 25 |")
    assert fresh == "| a new crop in each epoch, cold store |  | at most 5.0 |  | 200 |  |"
    every_epoch = floors(Costs(tiny), Limits({(1, 1, 1): 1e9}, 1e9), 1600, 2.0, 100)
    assert every_epoch["encode images"] == pytest.approx(least["encode images"] * (64 * 100 + 400) / (64 + 400))
    kept = least["encode images"] + least["encode sentences"]
    assert f"{sum(least.values()):.1f}" in cold
    assert f"{sum(least.values()) - kept:.1f}" in warm


def test_published_works_are_multiplied() -> None:
    table = published_table({"training step": ([1.0, 3.0, 2.0], 1600)})
    assert list(map(str, table.rows[-1])) == ["training step", "2.000", "3", "1600", "3200"]
