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
from biomedcoop.explain.doubts import NOT_CHECKED, failed_checks
from biomedcoop.explain.kinds import MAPS, maps_for

Row = dict[str, Any]
RowOf = Callable[..., Row]


@pytest.fixture
def row() -> RowOf:
    def made(map: str, correlation: float, images: int = 10) -> Row:
        value = {"value": 0.25, "low": 0.125, "high": 0.5}
        fields = ("pointing", "iou", "energy", "area", "deletion", "insertion")
        change = {name: {**value, "value": correlation} for name in ("correlation", "similarity")}
        return {
            "map": map,
            "images": images,
            "even": 1,
            **dict.fromkeys(fields, value),
            "changes": dict.fromkeys(TESTS, change),
        }

    return made


def test_every_cell_knows_its_number_of_images() -> None:
    for name, _, map in saliency.combinations():
        assert (saliency.LESIONS if name in saliency.SIMULATED else saliency.REAL_IMAGES)[map] > 0
    assert {*saliency.CHANGED, *saliency.ON_RANDOM_VIT} == set(saliency.SANITY_IMAGES) <= set(MAPS)


def test_images_with_lesions_are_of_each_class_in_turn(tiny_lite: Backbone) -> None:
    data = bc.load_dataset("simulated:breast-ultrasound?train=1&val=0&test=3")
    images = images_of(data, 5, tiny_lite, lesions=True)
    assert images.crops.shape == (5, tiny_lite.image_size, tiny_lite.image_size, 3)
    assert images.labels.tolist() == [0, 1, 0, 1, 0]  # normal scans have no lesion
    assert all(mask.any() for mask in images.masks)
    assert images_of(data, 4, tiny_lite).labels.tolist() == [0, 1, 2, 0]


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
    assert table.rows[0][table.columns.index("area")] == "0.250"
    rows = {("vit", "trained", "grad-cam", place): row("grad-cam", value) for place, value in (("a", 0.2), ("b", 0.8))}
    kind, other = sanity_table(rows).rows
    assert kind[3:7] == ["a", 10, 1, "0.20 / 0.20"]
    assert (kind[-1], other[-1]) == ("none", ", ".join(TESTS))


def test_the_package_is_told_of_the_worst_dataset(row: RowOf) -> None:
    found = {
        ("efficientnet-lite", "trained", map, place): row(map, value)
        for map, place, value in (("grad-cam", "a", 0.2), ("gscorecam", "a", 0.1), ("gscorecam", "b", 0.75))
    }
    told = checked(found)
    assert "efficientnet-lite" not in told["grad-cam"]
    assert told["gscorecam"]["efficientnet-lite"].count("(rank correlation up to 0.75)") == 3
    assert told["gradient-attention"] == {"vit": NOT_CHECKED}


def test_the_package_says_what_the_page_says() -> None:
    """A map is marked if, and only if, it fails a check on some dataset with trained weights, or has none."""
    fails: dict[tuple[object, object], set[object]] = {}
    for tower, weights, map, *_, failed in read_tables("saliency")["sanity"].rows:
        if weights == "trained":
            fails.setdefault((tower, map), set()).add(failed)
    for name in MAPS:
        for tower in ("vit", "resnet", "efficientnet-lite"):
            if name in maps_for(tower):
                reason = failed_checks().get(name, {}).get(tower, "")
                failed = fails.get((tower, name), {"no check"})
                assert bool(reason) == (failed != {"none"}), (name, tower)
                assert (reason == NOT_CHECKED) == (failed == {"no check"})
