"""Datasets of a protocol: their names in results, and what cannot be used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from biomedcoop.benchmark.protocol import Protocol
from biomedcoop.benchmark.sources import Source, find_sources, short_name
from biomedcoop.errors import UserError

from .conftest import protocol


def sources(asked: Protocol, root: Path) -> dict[str, Source]:
    return find_sources(asked, root, lambda *_: None)


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("BUSI", "busi"),
        ("covid_cxr3", "covid_cxr3"),  # another name of the catalogue's covid, with a part of its classes
        ("/data/my scans", "my-scans"),
        ("/data/scans.v2.csv", "scans.v2"),
        ("simulated:kidney-ct?train=9", "kidney-ct"),
        ("simulated:kidney-ct?difficulty=0.2&test=9", "kidney-ct-difficulty-0.2"),
    ],
)
def test_names_in_results(dataset: str, name: str) -> None:
    assert short_name(dataset) == name


def test_a_dataset_is_found_by_name_and_by_path(folder: Path) -> None:
    found = sources(protocol(datasets=["scans", str(folder / "others")]), folder)
    scans, others = found.values()
    assert (scans.name, others.name) == ("scans", "others")
    assert scans.facts is not None
    assert others.facts is not None
    assert scans.facts["images"] == {"train": 72, "val": 0, "test": 30}
    assert scans.facts["digest"] != others.facts["digest"]


def test_two_datasets_of_one_name_are_refused(folder: Path) -> None:
    shutil.copytree(folder / "scans", folder / "more" / "scans")
    with pytest.raises(UserError, match="would both be called scans in the results"):
        sources(protocol(datasets=["scans", str(folder / "more" / "scans")]), folder)


def test_a_data_root_that_is_no_folder_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        sources(protocol(), folder / "nowhere")


def test_another_split_file_than_the_published_one_cannot_be_used(folder: Path) -> None:
    busi = folder / "BUSI"
    shutil.copytree(folder / "scans", busi)
    entries: dict[str, list[Any]] = {"train": [], "test": []}
    for split, listed in entries.items():
        for label, name in enumerate(("blue_cyst", "green_tumor", "red_stone")):
            listed += [[f"{split}/{name}/{i:02}.png", label, name.replace("_", " ")] for i in range(10)]
    (busi / "split_BUSI.json").write_text(json.dumps(entries))
    found = sources(protocol(datasets=["busi", "scans"]), folder)
    assert found["busi"].place is None
    assert "not the published split file of busi" in found["busi"].reason
    assert found["scans"].place


def test_a_dataset_without_test_images_cannot_be_learned_from(folder: Path) -> None:
    shutil.rmtree(folder / "scans" / "test")
    found = sources(protocol(), folder)
    assert "no test images" in found["scans"].reason
    asked = protocol(kind="cross-dataset", datasets=["others"], tests={"others": ["scans"]}, methods=["zero-shot"])
    assert sources(asked, folder)["scans"].place, "to be tested on, all of its images serve"


def test_a_missing_dataset_names_the_data_root(folder: Path) -> None:
    found = sources(protocol(datasets=["scnas", "busi", "scans"]), folder)
    near, known = found["scnas"].reason, found["busi"].reason
    assert (
        near == f"there is no folder or file 'scnas' here, and no dataset of that name in {folder}; did you mean scans?"
    )
    assert (
        f"dataset 'busi' was not found here or in {folder}: run 'biomedcoop datasets download busi', give data_root the folder"
        in known
    )
