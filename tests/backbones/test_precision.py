"""The image tower in other precisions: near float32, the text tower untouched, and a choice that holds."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import biomedcoop.backbones.precision as precision_module
from backbones.tiny_clip import write_vit
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.bfloat16 import has_bfloat16
from biomedcoop.backbones.precision import WORTH, automatic, bfloat16_gain, set_precision
from biomedcoop.errors import Note, UserError
from biomedcoop.features.passes import encode_crops
from biomedcoop.features.spaces import image_space


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
    assert torch.stack(half.attention_maps(crops(half))[1]).float().sum(-1).allclose(torch.tensor(1.0), atol=0.02)


@pytest.mark.parametrize("model", ["parity", "clip"])
def test_int8_is_near_and_sees_each_image_alone(model: str, parity: Path, tmp_path: Path) -> None:
    folder = parity / "model" if model == "parity" else write_vit(tmp_path / "clip-vit")
    exact, coarse = load_backbone(folder), load_backbone(folder, precision="int8")
    images = np.random.default_rng(1).integers(0, 256, (5, exact.image_size, exact.image_size, 3), dtype=np.uint8)
    images[2] //= 8  # a dark one, whose activations have another range
    found = encode_crops(coarse, list(images))
    assert found.dtype == np.float32
    cosines = F.cosine_similarity(torch.from_numpy(found), torch.from_numpy(encode_crops(exact, list(images))))
    assert 0.98 < cosines.min() < 1
    np.testing.assert_array_equal(encode_crops(coarse, [images[2]])[0], found[2])
    assert image_space(coarse) != image_space(exact)
    torch.testing.assert_close(coarse.encode_text(["a cyst."]), exact.encode_text(["a cyst."]), atol=0, rtol=0)


def test_int8_has_no_gradients(parity: Path) -> None:
    coarse = load_backbone(parity / "model", precision="int8")
    with pytest.raises(UserError, match=r"no gradients pass .* in int8; load it with precision float32"):
        coarse.image_activations(crops(coarse), "blocks.0")
    with pytest.raises(UserError, match=r"no gradients pass .* in int8"):
        coarse.attention_maps(crops(coarse))
    with torch.no_grad():
        maps = torch.stack(coarse.attention_maps(crops(coarse))[1])
    assert maps.sum(-1).allclose(torch.tensor(1.0), atol=1e-3)


def test_auto_takes_what_is_worth_it_and_stays_with_it(parity: Path, tiny: Backbone) -> None:
    gain = bfloat16_gain(tiny)
    assert gain > 0
    expected = "bfloat16" if has_bfloat16() and gain >= WORTH else "float32"
    assert {automatic(tiny), load_backbone(parity / "model", precision="auto").precision} == {expected}
    assert bfloat16_gain(tiny) == gain


def test_another_process_on_this_machine_chooses_the_same(tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    gain = bfloat16_gain(tiny)
    monkeypatch.setattr(precision_module, "_gains", {})
    monkeypatch.setattr(precision_module, "_measured_gain", lambda _: 99.0)
    assert bfloat16_gain(tiny) == gain
    precision_module._gains.clear()
    monkeypatch.setattr("platform.node", lambda: "another machine")
    assert bfloat16_gain(tiny) == 99.0


def test_auto_measures_nothing_without_bfloat16(tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision_module, "bfloat16_gain", lambda _: 99.0)
    for fast, expected in ((False, "float32"), (True, "bfloat16")):
        monkeypatch.setattr(precision_module, "has_bfloat16", lambda fast=fast: fast)
        assert automatic(tiny) == expected


@pytest.mark.parametrize("fast", [False, True])
def test_a_processor_without_bfloat16_is_told(fast: bool, parity: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision_module, "has_bfloat16", lambda: fast)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_backbone(parity / "model", precision="bfloat16")
    notes = [str(one.message) for one in caught if issubclass(one.category, Note)]
    assert len(notes) == (not fast)
    assert fast or "bfloat16 is slower than float32 here" in notes[0]


@pytest.mark.parametrize("precision", ["float16", "fp32", "int4", "", "AUTO"])
def test_other_words_are_refused(precision: str) -> None:
    with pytest.raises(UserError) as caught:
        load_backbone("mini", precision=precision)
    assert str(caught.value) == f"precision '{precision}' is not known; choose float32, bfloat16, int8, auto"


def test_a_model_is_converted_once(parity: Path) -> None:
    coarse = load_backbone(parity / "model", precision="bfloat16")
    for precision in ("float32", "int8", "auto"):
        with pytest.raises(UserError, match=f"is already in bfloat16; load it again for precision {precision}"):
            set_precision(coarse, precision)
    assert coarse.precision == "bfloat16"
