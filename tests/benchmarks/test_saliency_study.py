"""The study of saliency maps: its images, its tables, and what the package is told of a map."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import biomedcoop as bc
from benchmarks.pages import read_tables
from benchmarks.studies import saliency
from benchmarks.studies.saliency import TESTS, Study, checked, images_of, sanity_table, truth_table
from biomedcoop.backbones.base import Backbone
from biomedcoop.explain.check import CENTRE_BLOB
from biomedcoop.explain.doubts import NOT_CHECKED, doubts, failed_checks
from biomedcoop.explain.maps import MAPS, maps_for

Row = dict[str, Any]
RowOf = Callable[..., Row]


@pytest.fixture
def row() -> RowOf:
    def made(map: str, correlation: float, images: int = 10) -> Row:
        value = {"value": 0.25, "low": 0.125, "high": 0.5}
        fields = ("pointing", "iou", "energy", "area", "deletion", "insertion")
        change = {name: {**value, "value": correlation} for name in ("correlation", "similarity")}
        return {"map": map, "images": images, **dict.fromkeys(fields, value), "changes": dict.fromkeys(TESTS, change)}

    return made


def test_every_cell_knows_its_number_of_images() -> None:
    for name, _, map in saliency.combinations():
        assert (saliency.LESIONS if name in saliency.SIMULATED else saliency.REAL_IMAGES)[map] > 0
    assert set(saliency.CHANGED) == set(maps_for("efficientnet-lite"))
    assert set(MAPS) == set(saliency.SANITY_IMAGES)


def test_images_with_lesions_are_of_each_class_in_turn() -> None:
    data = bc.load_dataset("simulated:breast-ultrasound?train=1&val=0&test=3")
    images = images_of(data, 5, 32, lesions=True)
    assert images.crops.shape == (5, 32, 32, 3)
    assert images.labels.tolist() == [0, 1, 0, 1, 0]  # normal scans have no lesion
    assert all(mask.any() for mask in images.masks)
    assert images_of(data, 4, 32).labels.tolist() == [0, 1, 2, 0]


def test_a_result_and_a_classifier_are_computed_once(tmp_path: Path, tiny_lite: Backbone) -> None:
    study, calls = Study(tmp_path, tiny_lite), []

    def compute() -> list[Row]:
        calls.append(1)
        return [{"a": 1.5}]

    assert study.kept("one cell", compute) == study.kept("one cell", compute) == [{"a": 1.5}]
    assert len(calls) == 1


def test_tables(row: RowOf) -> None:
    found = {
        ("a", "coop", "gscorecam"): [row("gscorecam", 0.1)],
        ("a", "coop", "grad-cam"): [row(CENTRE_BLOB, 1), row("grad-cam", 0)],
    }
    table = truth_table(found, ["a"], lesions=True)
    assert [line[2] for line in table.rows] == ["gscorecam", "grad-cam", CENTRE_BLOB]
    assert table.rows[0][-1] == "0.25 (0.12 to 0.50)"
    assert "a 0.250" in table.notes[0]
    rows = {("vit", "trained", "grad-cam"): [row("grad-cam", 0.2), row("grad-cam", 0.8, 30)]}
    assert sanity_table(rows).rows[0][3:5] == [40, "0.65 / 0.65"]


def test_what_the_package_is_told(row: RowOf) -> None:
    kinds = ("efficientnet-lite", "trained")
    told = checked({(*kinds, "grad-cam"): [row("grad-cam", 0.2)], (*kinds, "gscorecam"): [row("gscorecam", 0.75)]})
    assert "efficientnet-lite" not in told["grad-cam"]
    assert told["gscorecam"]["efficientnet-lite"].count("(rank correlation 0.75)") == 3
    assert told["gradient-attention"] == {
        "vit": "The map is not checked with trained weights of this kind of image tower."
    }


def test_the_package_says_what_the_page_says() -> None:
    """A map is marked if, and only if, it fails a check with trained weights or has none."""
    rows = [row for row in read_tables("saliency")["sanity"].rows if row[1] == "trained"]
    trained = {(str(row[0]), str(row[2])): str(row[-1]) for row in rows}
    for name in MAPS:
        for tower in ("vit", "resnet", "efficientnet-lite"):
            if name in maps_for(tower):
                reason, fails = failed_checks().get(name, {}).get(tower, ""), trained.get((tower, name), "no check")
                assert bool(reason) == (fails != "none"), (name, tower)
                assert (reason == NOT_CHECKED) == (fails == "no check")
                assert not reason or reason in list(doubts(name, tower))
