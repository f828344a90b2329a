"""The image tower without its last projection, for every kind of tower that has one."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.projection import _made, before_projection, projection_of
from biomedcoop.errors import UserError

KINDS = ["tiny", "tiny_clip_vit", "tiny_clip_resnet", "tiny_lite"]


def pixels_for(backbone: Backbone) -> torch.Tensor:
    size = backbone.image_size
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
def test_the_projection_of_its_features_gives_those_of_the_whole(kind: str, request: pytest.FixtureRequest) -> None:
    backbone: Backbone = request.getfixturevalue(kind)
    other, (weight, bias) = before_projection(backbone), projection_of(backbone)
    assert weight.shape == (backbone.embed_dim, other.embed_dim)
    pixels = pixels_for(backbone)
    with torch.no_grad():
        whole, inner = backbone.encode_image(pixels), other.encode_image(pixels)
        activations = other.image_activations(pixels, other.map_layer)
        torch.testing.assert_close(activations[0], inner, atol=1e-5, rtol=1e-5)
        if backbone.tower_kind == "vit":
            torch.testing.assert_close(other.attention_maps(pixels)[0], inner, atol=1e-5, rtol=1e-5)
    assert inner.shape == (3, other.embed_dim)
    torch.testing.assert_close(inner @ weight.T + bias, whole, atol=1e-5, rtol=1e-5)
    assert bool(bias.any()) == (kind == "tiny_clip_resnet")
    assert other.fingerprint != backbone.fingerprint
    assert other.original is backbone
    assert not other.has_text_tower
    with torch.no_grad():
        assert torch.equal(backbone.encode_image(pixels), whole), "the backbone itself has changed"


def test_those_in_use_are_shared(parity: Path) -> None:
    backbone = load_backbone(parity / "model")
    other = before_projection(backbone)
    assert before_projection(backbone) is other
    place = id(backbone)
    assert place in _made
    del backbone, other
    gc.collect()
    assert place not in _made


def test_bfloat16(parity: Path) -> None:
    """The weights are rounded to 8 bits, and so is what is between the layers."""
    backbone, coarse = load_backbone(parity / "model"), load_backbone(parity / "model", precision="bfloat16")
    pixels = pixels_for(backbone)
    with torch.no_grad():
        exact = before_projection(backbone).encode_image(pixels)
        other = before_projection(coarse)
        rounded = other.encode_image(pixels.bfloat16()).float()
    assert torch.nn.functional.cosine_similarity(exact, rounded).min() > 0.999
    assert projection_of(coarse).weight.dtype == torch.float32


def test_a_tower_without_projection_is_refused(tiny_siglip: Backbone, parity: Path) -> None:
    with pytest.raises(UserError, match="does not end with a linear projection; use the method rla"):
        before_projection(tiny_siglip)
    quantised = load_backbone(parity / "model", precision="int8")
    with pytest.raises(UserError, match=r"with precision int8 .* choose float32 or bfloat16"):
        before_projection(quantised)
