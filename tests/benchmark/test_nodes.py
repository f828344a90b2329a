"""Nodes that differ are refused, and weights travel to them."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from biomedcoop.backbones import load_backbone, locate
from biomedcoop.backbones.catalogue import BACKBONES, Entry, HubFiles
from biomedcoop.backbones.registry import folder_of
from biomedcoop.benchmark.compute import Work
from biomedcoop.benchmark.nodes import prepare_nodes
from biomedcoop.benchmark.prepare import find_backbones
from biomedcoop.benchmark.record import record_of
from biomedcoop.benchmark.sources import find_sources
from biomedcoop.errors import UserError

from .conftest import TINY, protocol
from .other_machine import OtherMachine


@pytest.fixture
def work(folder: Path) -> Work:
    asked = protocol()
    return Work(asked, find_sources(asked, folder, lambda *_: None))


def test_a_node_like_this_machine_is_taken(work: Work, tmp_path: Path) -> None:
    prepare_nodes(work, record_of(work, find_backbones(work)[1]), OtherMachine(tmp_path / "there"))


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (
            {"versions": {"biomedcoop": "9", "torch": "2", "numpy": "2"}},
            "biomedcoop is .* there and 9 here; install the same",
        ),
        ({"backbones": {"model": "f"}}, "backbone model: other weights there"),
        ({"backbones": {"gone": "f"}}, "backbone gone: other weights there"),
    ],
)
def test_a_node_with_other_content_is_refused(work: Work, tmp_path: Path, changed: dict[str, Any], line: str) -> None:
    record = {**record_of(work, find_backbones(work)[1]), **changed}
    with pytest.raises(UserError, match=f"node 10.0.0.7: {line}"):
        prepare_nodes(work, record, OtherMachine(tmp_path / "there"))


def test_a_node_with_other_images_is_refused(work: Work, tmp_path: Path) -> None:
    record = record_of(work, find_backbones(work)[1])
    source = work.sources["scans"]
    facts = {**source.facts, "digest": "other"} if source.facts else None
    other = dataclasses.replace(work, sources={"scans": dataclasses.replace(source, facts=facts)})
    with pytest.raises(UserError, match="scans holds other images there"):
        prepare_nodes(other, record, OtherMachine(tmp_path / "there"))
    gone = dataclasses.replace(work, sources={"scans": dataclasses.replace(source, place=tmp_path / "gone")})
    with pytest.raises(UserError, match="gone is not there; put the images at the same path"):
        prepare_nodes(gone, record, OtherMachine(tmp_path / "there"))
    without = dataclasses.replace(work, plugins=(str(tmp_path / "mine.py"),))
    with pytest.raises(UserError, match=r"plug-in .*mine.py is not there; copy it"):
        prepare_nodes(without, record, OtherMachine(tmp_path / "there"))


@pytest.mark.parametrize("name", ["tiny", "hub:someone/tiny"])
def test_weights_that_a_node_lacks_travel(
    name: str, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIOMEDCOOP_CACHE", str(tmp_path / "here"))
    monkeypatch.setitem(
        BACKBONES, "tiny", Entry("the tiny model", (HubFiles("someone/tiny", ("open_clip_config.json",)),))
    )
    shutil.copytree(TINY, folder_of(name))
    asked = protocol(backbones=[name])
    work = Work(asked, find_sources(asked, folder, lambda *_: None))
    there = OtherMachine(tmp_path / "there")
    assert there.there(lambda: locate(name)) is None
    fingerprint = load_backbone(name).fingerprint
    prepare_nodes(work, record_of(work, {Path(name).name: fingerprint}), there)
    assert there.there(lambda: load_backbone(name).fingerprint) == fingerprint
