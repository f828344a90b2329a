"""The image tower in other precisions: near float32, the text tower untouched, and a choice that holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.precision import WORTH, automatic, bfloat16_gain
from biomedcoop.errors import UserError


@pytest.fixture(scope="module")
def half(parity: Path) -> Backbone:
    return load_backbone(parity / "model", precision="bfloat16")


def crops(backbone: Backbone) -> torch.Tensor:
    size = backbone.image_size
    return backbone.normalize(np.random.default_rng(0).integers(0, 256, (4, size, size, 3), dtype=np.uint8))


def test_bfloat16_is_close_to_float32(half: Backbone, tiny: Backbone) -> None:
    features = half.encode_image(crops(half))
    assert features.dtype == torch.bfloat16
    assert (half.precision, tiny.precision) == ("bfloat16", "float32")
    cosines = F.cosine_similarity(features.float(), tiny.encode_image(crops(tiny)))
    assert 0.999 < cosines.min() < 1


def test_the_text_tower_stays_as_it_is(half: Backbone, tiny: Backbone) -> None:
    assert half.dtype == torch.float32
    assert half.fingerprint == tiny.fingerprint
    torch.testing.assert_close(half.encode_text(["a cyst."]), tiny.encode_text(["a cyst."]), atol=0, rtol=0)


def test_activations_and_attention_in_bfloat16(half: Backbone) -> None:
    features, kept = half.image_activations(crops(half), "blocks.0")
    features.sum().backward()  # type: ignore[no-untyped-call]
    assert kept.grad is not None
    assert kept.grad.float().abs().sum() > 0
    assert half.attention_maps(crops(half)).float().sum(-1).allclose(torch.tensor(1.0), atol=0.02)


def test_auto_takes_what_is_worth_it_and_stays_with_it(parity: Path, tiny: Backbone) -> None:
    gain = bfloat16_gain(tiny)
    assert gain > 0
    expected = "bfloat16" if gain >= WORTH else "float32"
    assert {automatic(tiny), load_backbone(parity / "model", precision="auto").precision} == {expected}
    assert bfloat16_gain(tiny) == gain


@pytest.mark.parametrize("precision", ["float16", "fp32", "int8", "", "AUTO"])
def test_other_words_are_refused(precision: str) -> None:
    with pytest.raises(UserError) as caught:
        load_backbone("mini", precision=precision)
    assert str(caught.value) == f"precision '{precision}' is not known; choose float32, bfloat16, auto"
