"""Weights laid out for many products: the same numbers, both ways, and nothing left behind."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.products import can_pack, packed, text_layers


@pytest.fixture(params=["tiny", "tiny_clip_vit"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    found: Backbone = request.getfixturevalue(request.param)
    return found


def answer(backbone: Backbone, texts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of random embeddings and the gradient of their sum."""
    x = torch.randn(texts, 7, backbone.token_dim, generator=torch.Generator().manual_seed(texts)).requires_grad_()
    out = backbone.encode_text_embeddings(x, torch.ones(texts, 7, dtype=torch.bool))
    return out.detach(), torch.autograd.grad((out * torch.arange(backbone.embed_dim)).sum(), x)[0]


def replaced(backbone: Backbone) -> list[str]:
    return [name for name, module in backbone.towers.named_modules() if "forward" in module.__dict__]


def test_the_same_features_and_gradients(backbone: Backbone) -> None:
    expected = answer(backbone, 6)
    other_rows = answer(backbone, 5)
    with packed(text_layers(backbone)):
        if can_pack(next(backbone.towers.parameters())):
            assert replaced(backbone)
            assert not [name for name in replaced(backbone) if name.startswith("visual.")]
        for found, right in zip((*answer(backbone, 6), *answer(backbone, 5)), (*expected, *other_rows), strict=True):
            torch.testing.assert_close(found, right, atol=1e-4 * float(right.abs().max()), rtol=0)
    assert not replaced(backbone)
    torch.testing.assert_close(answer(backbone, 6), expected, atol=0, rtol=0)


def test_nothing_is_left_behind_by_an_error(tiny: Backbone) -> None:
    with pytest.raises(KeyboardInterrupt), packed(text_layers(tiny)):
        raise KeyboardInterrupt
    assert not replaced(tiny)


def test_other_precisions_are_left_alone(parity) -> None:  # type: ignore[no-untyped-def]
    exact = load_backbone(parity / "model", dtype=torch.float64)
    with packed(text_layers(exact)):
        assert not replaced(exact)


def test_this_build_of_torch_has_the_operators(tiny: Backbone) -> None:
    """On x86 it must: else the speed that is documented silently goes."""
    if torch.backends.mkl.is_available():
        assert can_pack(next(tiny.towers.parameters()))
    assert any(isinstance(module, nn.Linear) for module in tiny.towers.modules())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_is_kept_goes_with_the_weights(precision: str, parity: Path) -> None:
    backbone = load_backbone(parity / "model", precision=precision)
    pixels = backbone.normalize(np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8))
    layers = list(backbone.image_tower.modules())

    def encode(pixels: torch.Tensor = pixels) -> torch.Tensor:
        with torch.inference_mode(), packed(layers, keep=True):
            if can_pack(next(backbone.image_tower.parameters())):
                assert replaced(backbone)
            return backbone.encode_image(pixels)

    expected = encode()
    torch.testing.assert_close(encode(), expected, atol=0, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(expected, backbone.encode_image(pixels), atol=0.02, rtol=0)
        torch.testing.assert_close(encode(pixels[:3]), expected[:3], atol=0.02, rtol=0)  # a pass of another shape
        for layer in layers:
            if type(layer) is nn.Linear:
                layer.weight.mul_(1.5)
        torch.testing.assert_close(encode(), backbone.encode_image(pixels), atol=0.02, rtol=0)
    assert float((encode() - expected).abs().max()) > 0.1
    assert not replaced(backbone)


def test_threads_lay_out_once(tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    laid_out: list[int] = []
    real = getattr(torch.ops.mkl, "_mkl_reorder_linear_weight", None)
    layers = [layer for layer in text_layers(tiny) if type(layer) is nn.Linear and can_pack(layer.weight)]

    def counted(weight: torch.Tensor, rows: int) -> torch.Tensor:
        laid_out.append(weight.data_ptr())
        time.sleep(0.01)
        return real(weight, rows)  # type: ignore[misc,no-any-return]

    monkeypatch.setattr(torch.ops.mkl, "_mkl_reorder_linear_weight", counted, raising=False)
    x, mask = torch.randn(6, 7, tiny.token_dim), torch.ones(6, 7, dtype=torch.bool)

    def encode(_: int) -> torch.Tensor:
        with torch.no_grad():
            return tiny.encode_text_embeddings(x, mask)

    with packed(text_layers(tiny)), ThreadPoolExecutor(4) as pool:
        found = list(pool.map(encode, range(8)))
    assert len(laid_out) == len(set(laid_out)) == len(layers)
    for one in found:
        torch.testing.assert_close(one, found[0], atol=0, rtol=0)
