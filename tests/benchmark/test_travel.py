"""Machines with stores of their own: each image is encoded once, and its feature travels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from biomedcoop.backbones import load_backbone
from biomedcoop.benchmark.compute import Work
from biomedcoop.benchmark.plan import groups_of
from biomedcoop.benchmark.sources import find_sources, read_source
from biomedcoop.benchmark.travel import Shard, TravellingWork
from biomedcoop.features.content import content_hashes, named_images
from biomedcoop.features.spaces import image_space
from biomedcoop.features.transfer import Rows, read_rows

from .conftest import TINY, Run, lines_of, protocol
from .other_machine import OtherMachine


def test_another_machine_gives_the_same_results(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = protocol(methods=["zero-shot", "tip-adapter", "coop"], shots=[1])
    run(asked, "local")
    monkeypatch.setenv("BIOMEDCOOP_CACHE", str(tmp_path / "here"))
    monkeypatch.setattr("biomedcoop.benchmark.travel.SHARD", 10)
    monkeypatch.setattr("biomedcoop.benchmark.prepare.SAMPLE", 8)
    there = OtherMachine(tmp_path / "there")
    summary = run(asked, executor=there)
    assert (summary.done, summary.failed, summary.jobs) == (5, 0, 1)
    assert lines_of(tmp_path / "out") == lines_of(tmp_path / "local")
    shards = [item for item in there.worked if isinstance(item, Shard)]
    images = [key for shard in shards for key in shard.keys]
    assert len(images) == len(set(images)) > 20
    assert max(len(shard.keys) for shard in shards) == 10
    space = image_space(load_backbone(TINY))
    np.testing.assert_array_equal(
        read_rows(space, images).features, there.there(lambda: read_rows(space, images)).features
    )


def test_groups_read_the_features_that_they_bring(folder: Path, tmp_path: Path) -> None:
    asked = protocol(methods=["zero-shot"])
    work = Work(asked, find_sources(asked, folder, lambda *_: None))
    place = work.sources["scans"].place
    assert place is not None
    data = read_source(place, True)
    space = image_space(load_backbone(TINY))
    keys = list(content_hashes(named_images(data), 1))
    brought = np.random.default_rng(0).normal(size=(len(keys), int(space["width"]))).astype(np.float32)
    rows = Rows(space, np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32), brought)
    travelling = TravellingWork(work, {("scans", str(TINY)): [rows]})
    there = OtherMachine(tmp_path / "there")
    (group,) = groups_of(asked, work.sources)
    assert there.there(lambda: travelling(group)).lines[0]["status"] == "done"
    np.testing.assert_array_equal(there.there(lambda: read_rows(space, keys)).features, brought)


def test_an_image_that_cannot_be_read_fails_its_runs_only(run: Run, folder: Path, tmp_path: Path) -> None:
    next((folder / "others" / "test" / "red_stone").iterdir()).write_bytes(b"no image")
    asked = protocol(datasets=["others", "scans"], methods=["zero-shot"])
    summary = run(asked, executor=OtherMachine(tmp_path / "there"))
    assert (summary.done, summary.failed) == (1, 1)
    (failed,) = [line for line in lines_of(tmp_path / "out") if line["status"] == "failed"]
    assert "red_stone" in failed["reason"]


def test_a_store_that_cannot_be_written_fails_the_group(folder: Path, tmp_path: Path) -> None:
    asked = protocol(methods=["zero-shot"])
    work = Work(asked, find_sources(asked, folder, lambda *_: None))
    rows = Rows(image_space(load_backbone(TINY)), np.zeros((1, 32), np.uint8), np.zeros((1, 32), np.float32))
    (tmp_path / "file").write_text("no folder")
    (group,) = groups_of(asked, work.sources)
    lines = (
        OtherMachine(tmp_path / "file").there(lambda: TravellingWork(work, {("scans", str(TINY)): [rows]})(group)).lines
    )
    assert lines[0]["status"] == "failed"
    assert "cannot" in lines[0]["reason"]
