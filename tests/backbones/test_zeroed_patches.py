"""The constant tokens of Biomed-DPT: another backbone with features of its own, for ViTs of timm's form."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import biomedcoop as bc
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.catalogue import ZEROED_PATCHES
from biomedcoop.backbones.registry import has_text_tower
from biomedcoop.errors import UserError
from biomedcoop.tasks.request import absolute


@pytest.fixture(scope="module")
def masked(parity: Path) -> Backbone:
    return load_backbone(f"{parity / 'model'}{ZEROED_PATCHES}")


def plain(backbone: Backbone, pixels: torch.Tensor) -> torch.Tensor:
    """The tower written out block by block, all tokens of each; zeros at tokens 1 to 4 before each block."""
    tower = backbone.towers.visual.trunk
    x = tower.embed(pixels)
    for block in tower.blocks:
        x = torch.cat([x[:, :1], torch.zeros_like(x[:, 1:5]), x[:, 5:]], dim=1)
        attended = block.attn(block.norm1(x))
        x = x + attended
        x = x + block.mlp(block.norm2(x))
    return backbone.towers.visual.head.proj(tower.norm(x)[:, 0])


def test_features(masked: Backbone, tiny: Backbone) -> None:
    pixels = torch.randn(2, 3, tiny.image_size, tiny.image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = masked.encode_image(pixels)
        torch.testing.assert_close(found, plain(tiny, pixels), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(masked.attention_maps(pixels)[0], found, atol=1e-5, rtol=1e-5)
        assert (found - tiny.encode_image(pixels)).abs().max() > 1e-3
        torch.testing.assert_close(masked.encode_text(["a cyst"]), tiny.encode_text(["a cyst"]))


def test_it_is_another_backbone(masked: Backbone, tiny: Backbone, parity: Path) -> None:
    """Its name and fingerprint are its own, so stored features and classifiers of the two never mix."""
    assert masked.name == tiny.name + ZEROED_PATCHES
    assert masked.fingerprint != tiny.fingerprint
    assert len(masked.fingerprint) == len(tiny.fingerprint)
    assert has_text_tower(f"{parity / 'model'}{ZEROED_PATCHES}")
    assert absolute("backbone", f"{parity / 'model'}{ZEROED_PATCHES}") == f"{parity / 'model'}{ZEROED_PATCHES}"


def test_a_classifier_of_it(parity: Path, tmp_path: Path) -> None:
    shutil.copytree(parity / "model", tmp_path / "own")
    name = f"{tmp_path / 'own'}{ZEROED_PATCHES}"
    data = bc.load_dataset("simulated:kidney-ct?train=2&val=0&test=1")
    fitted = bc.fit(data, method="zero-shot", backbone=name)
    fitted.save(tmp_path / "model")
    read = bc.load(tmp_path / "model", name)
    np.testing.assert_array_equal(
        read.predict_proba(list(data.part("test").images)), fitted.predict_proba(list(data.part("test").images))
    )
    with pytest.raises(UserError, match="was trained on the backbone"):
        bc.load(tmp_path / "model", tmp_path / "own")


def test_others_are_refused() -> None:
    with pytest.raises(UserError, match=r"mini: \+zeroed-patches needs an image tower that is a ViT .* leave .* out"):
        load_backbone("mini" + ZEROED_PATCHES)
    with pytest.raises(UserError, match=r"no backbone 'minni\+zeroed-patches'"):
        load_backbone("minni" + ZEROED_PATCHES)
