from __future__ import annotations

import json
from pathlib import Path

import pytest

from biomedcoop.data.catalogue import entries, external_sites, find, medmnist_class_names, medmnist_name

PARITY = Path(__file__).parents[1] / "parity_a"


def test_the_eleven_datasets_are_there_once() -> None:
    known = (*entries(), *external_sites())
    names = [name.casefold() for entry in known for name in dict.fromkeys(map(str.casefold, entry.all_names))]
    assert len(entries()) == 11
    assert len(names) == len(set(names))


def test_the_numbers_of_each_class_add_up() -> None:
    for entry in entries():
        if entry.name != "octmnist":
            assert {split: sum(numbers) for split, numbers in entry.class_counts.items()} == entry.counts
            assert {len(numbers) for numbers in entry.class_counts.values()} == {len(entry.class_names)}
            assert len(entry.split_sha256 or "") == 64


def test_external_sites_have_classes_of_the_dataset_that_they_test() -> None:
    sites = external_sites()
    assert [site.name for site in sites] == ["btmri-p", "btmri-s", "brisc", "buid", "busbra", "udiat"]
    for site in sites:
        tested = find(site.tests or "")
        assert tested is not None
        assert set(site.class_names) <= set(tested.class_names)
        assert (site.kind, tested.kind) == ("external", "benchmark")
        assert (site.modality, site.organ) == (tested.modality, tested.organ)


def test_every_card_names_caveat_and_licence() -> None:
    for entry in (*entries(), *external_sites()):
        card = entry.card
        assert card["caveat"].endswith(".")
        assert card["licence"]
        assert all(name in " ".join(card.values()) for name in entry.class_names)


def test_class_names_equal_those_of_the_published_split_files() -> None:
    published = json.loads((PARITY / "base_new_classes.json").read_text())
    for entry in entries():
        if entry.folder in published:
            assert list(entry.class_names) == published[entry.folder]["all"]
    assert len(published) == 10


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("busi", "busi"),
        ("BUSI", "busi"),
        ("HAM10000", "dermamnist"),
        ("covid-cxr3", "covid"),
        ("COVID_19", "covid"),
        ("lc25000", "lungcolon"),
    ],
)
def test_finds_by_name_folder_or_alias(name: str, expected: str) -> None:
    entry = find(name)
    assert entry is not None
    assert entry.name == expected


def test_a_dataset_of_the_same_name_but_other_classes_is_not_the_benchmark() -> None:
    assert find("retina", ["healthy", "sick"]) is None
    assert find("no such dataset") is None
    covid = find("covid_radiography", ["covid lungs", "normal lungs"])
    assert covid is not None
    assert covid.name == "covid"


def test_medmnist_names() -> None:
    assert medmnist_name("OctMNIST_224") == "octmnist"
    assert medmnist_name("my_scans_64") == "my_scans_64"
    assert medmnist_class_names("octmnist_64") == find("octmnist").class_names  # type: ignore[union-attr]
    assert medmnist_class_names("pneumoniamnist") == ("normal", "pneumonia")
    assert medmnist_class_names("scans") is None
