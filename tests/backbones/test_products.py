"""Weights laid out for many products: the same numbers, both ways, and nothing left behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.products import can_pack, packed


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
    with packed(backbone, 6 * 7):
        if can_pack(backbone):
            assert replaced(backbone)
            assert not [name for name in replaced(backbone) if name.startswith("visual.")]
        for found, right in zip((*answer(backbone, 6), *answer(backbone, 5)), (*expected, *other_rows), strict=True):
            torch.testing.assert_close(found, right, atol=1e-4 * float(right.abs().max()), rtol=0)
    assert not replaced(backbone)
    torch.testing.assert_close(answer(backbone, 6), expected, atol=0, rtol=0)


def test_nothing_is_left_behind_by_an_error(tiny: Backbone) -> None:
    with pytest.raises(KeyboardInterrupt), packed(tiny, 42):
        raise KeyboardInterrupt
    assert not replaced(tiny)


def test_other_precisions_are_left_alone(parity) -> None:  # type: ignore[no-untyped-def]
    exact = load_backbone(parity / "model", dtype=torch.float64)
    with packed(exact, 42):
        assert not replaced(exact)


def test_this_build_of_torch_has_the_operators(tiny: Backbone) -> None:
    """On x86 it must: else the speed that is documented silently goes."""
    if torch.backends.mkl.is_available():
        assert can_pack(tiny)
    assert any(isinstance(module, nn.Linear) for module in tiny.towers.modules())
