"""Prepacked weights: the same features and gradients, and nothing left behind."""

from __future__ import annotations

import gc
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.prepack import PrepackedLinear, can_prepack, prepack_image_tower, prepack_text_tower
from biomedcoop.backbones.vit import attended_by_one, each_row
from biomedcoop.features.passes import encode_crops


@pytest.fixture(params=["tiny", "tiny_clip_vit", "tiny_lite", "tiny_siglip"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    found: Backbone = request.getfixturevalue(request.param)
    return found


def answer(backbone: Backbone, texts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of random embeddings and the gradient of their sum."""
    x = torch.randn(texts, 7, backbone.token_dim, generator=torch.Generator().manual_seed(texts)).requires_grad_()
    out = backbone.encode_text_embeddings(x, torch.ones(texts, 7, dtype=torch.bool))
    return out.detach(), torch.autograd.grad((out * torch.arange(backbone.embed_dim)).sum(), x)[0]


def prepacked_layers(tower: nn.Module) -> list[PrepackedLinear]:
    return [module.forward for module in tower.modules() if isinstance(module.forward, PrepackedLinear)]


def test_the_same_features_and_gradients(backbone: Backbone) -> None:
    expected = answer(backbone, 6)
    other_rows = answer(backbone, 5)
    fast = prepack_text_tower(backbone)
    assert bool(prepacked_layers(fast.towers)) == any(map(can_prepack, backbone.towers.modules()))
    for found, right in zip((*answer(fast, 6), *answer(fast, 5)), (*expected, *other_rows), strict=True):
        torch.testing.assert_close(found, right, atol=1e-4 * float(right.abs().max()), rtol=0)
    assert not prepacked_layers(backbone.towers)
    torch.testing.assert_close(answer(backbone, 6), expected, atol=0, rtol=0)


def test_weights_are_shared(tiny: Backbone) -> None:
    for fast, name in ((prepack_text_tower(tiny), "towers"), (prepack_image_tower(tiny), "image_tower")):
        ours, theirs = (list(getattr(b, name).parameters()) for b in (fast, tiny))
        assert all(a is b for a, b in zip(ours, theirs, strict=True))


def test_other_precisions_are_left_alone(parity: Path) -> None:
    exact = load_backbone(parity / "model", dtype=torch.float64)
    embeddings = torch.randn(6, 7, exact.token_dim, dtype=torch.float64)
    mask = torch.ones(6, 7, dtype=torch.bool)
    found, right = (b.encode_text_embeddings(embeddings, mask) for b in (prepack_text_tower(exact), exact))
    torch.testing.assert_close(found, right, atol=0, rtol=0)


def test_this_build_of_torch_has_the_operators(tiny: Backbone) -> None:
    """On x86 it must: else the speed that is documented silently goes."""
    assert any(isinstance(module, nn.Linear) for module in tiny.towers.modules())
    if torch.backends.mkl.is_available():
        assert any(map(can_prepack, tiny.towers.modules()))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_is_kept_goes_with_the_weights(precision: str, parity: Path) -> None:
    backbone = load_backbone(parity / "model", precision=precision)
    pixels = backbone.normalize(np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8))

    def encode(pixels: torch.Tensor = pixels) -> torch.Tensor:
        with torch.inference_mode():
            return prepack_image_tower(backbone).encode_image(pixels)

    def assert_right() -> None:
        with torch.no_grad():
            torch.testing.assert_close(encode(), backbone.encode_image(pixels), atol=0.02, rtol=0)

    first = encode()
    assert prepack_image_tower(backbone).image_tower is prepack_image_tower(backbone).image_tower
    torch.testing.assert_close(encode(), first, atol=0, rtol=0)
    torch.testing.assert_close(encode(pixels[:3]), first[:3], atol=0.02, rtol=0)  # a pass of another shape
    assert_right()
    layer = next(module for module in backbone.image_tower.modules() if type(module) is nn.Linear)
    with torch.no_grad():
        layer.weight.mul_(1.5)
        assert_right()
        layer.bias = nn.Parameter(layer.bias + 1)
        assert_right()
        layer.weight.data = layer.weight * 2
        assert_right()
    assert float((encode() - first).abs().max()) > 0.1


def test_what_is_kept_goes_with_the_tower(parity: Path) -> None:
    backbone = load_backbone(parity / "model")
    towers = [weakref.ref(prepack_image_tower(backbone).image_tower), weakref.ref(backbone.image_tower)]
    del backbone
    gc.collect()
    assert [tower() for tower in towers] == [None, None]


def test_a_hook_sees_every_pass(tiny: Backbone, tmp_path: Path) -> None:
    seen: list[int] = []
    crops = [np.full((32, 32, 3), n, dtype=np.uint8) for n in range(3)]
    encode_crops(tiny, crops)
    last = list(tiny.image_tower.modules())[-1]
    handle = last.register_forward_hook(lambda _module, _inputs, output: seen.append(len(output)))
    try:
        encode_crops(tiny, crops)
    finally:
        handle.remove()
    assert len(seen) == 1
    encode_crops(tiny, crops)
    assert len(seen) == 1


@torch.inference_mode()
def test_one_row_for_each_image_has_the_same_bits_among_any_number() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*shape, generator=generator) for shape in ((7, 1, 64), (48, 64), (48,)))
    q, k, v = (torch.randn(7, 4, tokens, 16, generator=generator) for tokens in (1, 50, 50))
    seen = torch.arange(50) <= torch.arange(7)[:, None]
    torch.testing.assert_close(each_row(x, weight, bias), torch.nn.functional.linear(x, weight, bias))
    torch.testing.assert_close(
        attended_by_one(q, k, v, seen),
        torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None, None]),
    )
    for n in range(1, 7):
        assert torch.equal(each_row(x[:n], weight, bias), each_row(x, weight, bias)[:n])
        assert torch.equal(attended_by_one(q[:n], k[:n], v[:n], seen[:n]), attended_by_one(q, k, v, seen)[:n])
    # tokens of several images in one buffer, as a tower has them
    strided = k.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(attended_by_one(q[:1], strided[:1], v[:1]), attended_by_one(q, strided, v)[:1])


def test_threads_prepack_once(tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    weights: list[int] = []
    real = getattr(torch.ops.mkl, "_mkl_reorder_linear_weight", None)

    def counted(weight: torch.Tensor, rows: int) -> torch.Tensor:
        weights.append(weight.data_ptr())
        time.sleep(0.01)
        return real(weight, rows)  # type: ignore[misc,no-any-return]

    monkeypatch.setattr(torch.ops.mkl, "_mkl_reorder_linear_weight", counted, raising=False)
    x, mask = torch.randn(6, 7, tiny.token_dim), torch.ones(6, 7, dtype=torch.bool)
    fast = prepack_text_tower(tiny)

    def encode(_: int) -> torch.Tensor:
        with torch.no_grad():
            return fast.encode_text_embeddings(x, mask)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(encode, range(8)))
    text = [m for name, m in tiny.towers.named_modules() if can_prepack(m) and not name.startswith("visual.")]
    assert len(weights) == len(set(weights)) == len(text)
    for one in found:
        torch.testing.assert_close(one, found[0], atol=0, rtol=0)
