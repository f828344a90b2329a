"""BiomedCoOp trained for a few steps on real images with a backbone of each family, at full size, with random weights."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import biomedcoop as bc
from backbones.full_clip import write_full_clip
from backbones.tiny_image_only import write_dinov2
from backbones.tiny_pmc_clip import write_full_pmc_clip
from backbones.tiny_siglip import BASE, write_siglip
from benchmarks.speed.full_size import write_bin
from biomedcoop.backbones import load_backbone

pytestmark = [pytest.mark.slow, pytest.mark.real_data]

FAMILIES: dict[str, Callable[[Path], Any]] = {
    "biomedclip": write_bin,
    "clip-vit-b-16": lambda folder: write_full_clip(folder, 16),
    "pubmedclip": lambda folder: write_full_clip(folder, 32),
    "pmc-clip": write_full_pmc_clip,
    "siglip-base": lambda folder: write_siglip(folder, BASE),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A folder that is gone afterwards: its weights take hundreds of megabytes."""
    monkeypatch.setenv("BIOMEDCOOP_CACHE", str(tmp_path / "cache"))
    yield tmp_path
    shutil.rmtree(tmp_path)


def check_saved(classifier: bc.Classifier, data: bc.Dataset, folder: Path) -> None:
    """What is saved and read gives the same probabilities of two test images."""
    images = [data.images[i] for i in data.indices("test")[:2]]
    probabilities = classifier.predict_proba(images)
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    assert np.ptp(probabilities, axis=0).max() > 1e-6, "images are told apart"
    classifier.save(folder)
    np.testing.assert_array_equal(bc.load(folder, classifier.backbone.original).predict_proba(images), probabilities)


@pytest.mark.parametrize("family", FAMILIES)
def test_biomedcoop_learns_on_real_images(family: str, place: Path) -> None:
    FAMILIES[family](place / family)
    backbone, data = load_backbone(place / family), bc.load_dataset("busi")
    losses: list[float] = []

    def keep(stage: str, _done: int, _total: int) -> None:
        if found := re.search(r"loss ([^)]+)", stage):
            losses.append(float(found[1]))

    settings = {"epochs": 2, "n_sentences": 3, "batch_size": 3}
    classifier = bc.fit(data, "biomedcoop", backbone, shots=2, views=1, settings=settings, seed=1, progress=keep)
    assert len(losses) == 4
    assert all(map(math.isfinite, losses))
    assert classifier.state["context"].shape == (4, backbone.token_dim)

    # each vector has left the word that it began with
    with torch.no_grad():
        words = backbone.embed_tokens(backbone.tokenize(["a photo of a"]))[0]
    moved = torch.cdist(classifier.state["context"], words).amin(1)
    print(f"{family}: losses {losses}, context moved by {moved.tolist()}")
    assert (moved > 1e-6).all()
    assert (moved < 0.1).all()
    check_saved(classifier, data, place / "model")


def test_evi_steer_learns_on_real_images(place: Path) -> None:
    """Through both towers of a BiomedCLIP: eleven pairs of modules of rank 4, for two steps."""
    write_bin(place / "biomedclip")
    backbone, data = load_backbone(place / "biomedclip"), bc.load_dataset("busi")
    settings = {"epochs": 2, "batch_size": 6}
    classifier = bc.fit(data, "evi-steer", backbone, shots=2, settings=settings, seed=1)
    assert classifier.state["text_uncertainty"].shape == (11, 4)
    for tower in ("image", "text"):
        moved = torch.stack([classifier.state[f"{tower}.{number}.up"].abs().amax() for number in range(1, 12)])
        print(f"{tower}: W↑ moved by {moved.tolist()}")
        assert (moved > 1e-5).all()
        assert (moved < 0.01).all()
    check_saved(classifier, data, place / "model")


def test_a_linear_probe_learns_on_real_images(place: Path) -> None:
    folder = write_dinov2(place / "dinov2", width=384, layers=12, heads=6, patch=14, stored=518, size=224)
    data = bc.load_dataset("busi")
    classifier = bc.fit(data, "linear-probe", load_backbone(folder), shots=2, seed=1)
    assert classifier.state["weight"].abs().max() > 0
    check_saved(classifier, data, place / "model")
