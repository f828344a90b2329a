"""Words for one modality or organ are known as such, and none is taken for another."""

from __future__ import annotations

import itertools

import pytest

from biomedcoop.data import catalogue
from biomedcoop.data.simulate.scan import TASKS
from biomedcoop.prompts.imaging import modalities, same_modality, within_organ
from biomedcoop.prompts.library import library, template_sets


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("x_ray", ["X-ray"]),
        ("chest X-ray", ["X-ray"]),
        ("Chest radiographs", ["X-ray"]),
        ("digital radiography", ["X-ray"]),
        ("CT scan", ["CT"]),
        ("Computed Tomography", ["CT"]),
        ("kidney CT", ["CT"]),
        ("magnetic resonance imaging", ["MRI"]),
        ("brain MR images", ["MRI"]),
        ("US", ["ultrasound"]),
        ("B-mode ultrasound", ["ultrasound"]),
        ("dermoscopic", []),
        ("dermoscopy", ["dermatoscopy"]),
        ("retinal fundus photography", ["fundus photography"]),
        ("OCT", ["optical coherence tomography"]),
        ("histology", ["histopathology"]),
        ("microscopy", ["histopathology", "light microscopy"]),
        ("light microscopy", ["light microscopy", "histopathology"]),
        ("colonoscopy", ["endoscopy"]),
        ("PET CT", []),
        ("tomography", []),
        ("holography", []),
        ("several", []),
        ("chest", []),
        ("", []),
    ],
)
def test_modalities(text: str, named: list[str]) -> None:
    assert modalities(text) == named


def test_modalities_are_told_apart() -> None:
    names = [name for name in template_sets() if name != "general"]
    for a, b in itertools.combinations(names, 2):
        assert same_modality(a, b) is ({a, b} == {"histopathology", "light microscopy"})
    assert same_modality("Holography", "holography")
    assert not same_modality("holography", "CT")


@pytest.mark.parametrize(
    ("part", "whole", "within"),
    [
        ("Kidneys", "kidney", True),
        ("lung", "chest", True),
        ("thorax", "chest", True),
        ("lung", "lung and colon", True),
        ("colon, lungs", "lung and colon", True),
        ("lung and colon", "colorectum", False),
        ("large bowel", "colorectum", True),
        ("eye", "retina", True),
        ("head", "brain", True),
        ("liver", "kidney", False),
        ("liver and kidney", "kidney", False),
        ("Liver", "liver", True),
    ],
)
def test_organs(part: str, whole: str, within: bool) -> None:
    assert within_organ(part, whole) is within


def test_what_the_package_says_of_its_own_data_is_understood() -> None:
    for about in (*catalogue.entries(), *TASKS.values()):
        assert modalities(about.modality)[0] == about.modality
    for content in library().values():
        assert same_modality(content["modality"], content["modality"])
        assert within_organ(content["organ"], content["organ"])
