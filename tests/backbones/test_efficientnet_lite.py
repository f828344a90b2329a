"""EfficientNet-Lite: timm's tensors and features, its layers, and what a folder may say of it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from backbones.folders import WEIGHTS, edit_json, refusal
from backbones.tiny_lite import EMBED, GOLDEN, SIZE, pixels, trunk, write_lite
from biomedcoop.backbones import efficientnet_lite, load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.efficientnet_lite import Convolution, EfficientNetLite, read_config
from biomedcoop.errors import UserError
from biomedcoop.features.passes import encode_crops, image_batch


@pytest.fixture(scope="module")
def golden() -> dict:
    found: dict = json.loads(GOLDEN.read_text())
    return found


@pytest.fixture
def lite(tmp_path: Path) -> Path:
    """A folder, to be spoilt."""
    return write_lite(tmp_path / "lite")


# -- timm's tensors and features


@pytest.mark.parametrize("number", range(5))
def test_names_and_shapes_are_those_of_timm(number: int, golden: dict) -> None:
    shapes = {k: torch.Size(map(int, v.split("x"))) for k, v in golden[f"efficientnet_lite{number}"].items()}
    for prefix in ("", "tf_"):
        config = read_config(f"{prefix}efficientnet_lite{number}", 224, lambda key, _: shapes[key])
        with torch.device("meta"):
            tower = EfficientNetLite(config)
        assert {k: v.shape for k, v in tower.state_dict().items() if k.endswith(".weight")} == shapes
        beside = {"bias", "running_mean", "running_var"}
        assert {k.rpartition(".")[2] for k in tower.state_dict()} == {"weight", *beside}
        assert config.tensorflow == bool(prefix)


@pytest.mark.parametrize("kind", ["tensorflow", "torch"])
def test_features_are_those_of_timm(kind: str, golden: dict) -> None:
    """To 1e-5 of values up to 6, which timm's rounding in the file allows."""
    found = trunk(tensorflow=kind == "tensorflow")(pixels())[:, ::40]
    np.testing.assert_allclose(found, golden[kind], atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [4, 5, 50, 111])
@pytest.mark.parametrize("kernel", [3, 5])
def test_padding_is_that_of_tensorflow(kernel: int, size: int) -> None:
    """Output position i reads pixels from 2i - before on; what is odd is missing at the end."""
    layer = Convolution(1, 1, kernel, 2).requires_grad_(False)
    layer.odd_last = True
    image = torch.randn(1, 1, size, size, generator=torch.Generator().manual_seed(size))
    out = layer(image)
    positions = math.ceil(size / 2)
    assert out.shape == (1, 1, positions, positions)
    before = max(0, (positions - 1) * 2 + kernel - size) // 2
    space = torch.zeros(size + 4 * kernel, size + 4 * kernel)
    space[kernel : kernel + size, kernel : kernel + size] = image[0, 0]
    for row, column in ((0, 0), (0, positions - 1), (positions - 1, positions - 1)):
        top, left = (kernel + 2 * place - before for place in (row, column))
        expected = (space[top : top + kernel, left : left + kernel] * layer.weight[0, 0]).sum()
        torch.testing.assert_close(out[0, 0, row, column], expected, atol=1e-5, rtol=0)


def test_batch_normalisation_never_looks_at_the_batch() -> None:
    tower = trunk()
    together = tower(pixels())
    tower.train()
    torch.testing.assert_close(tower(pixels()), together, atol=0, rtol=0)
    torch.testing.assert_close(tower(pixels()[:1]), together[:1], atol=1e-4, rtol=0)


# -- the backbone


def test_attributes(tiny_lite: Backbone) -> None:
    assert (tiny_lite.image_size, tiny_lite.embed_dim, tiny_lite.mean) == (SIZE, EMBED, (0.5, 0.5, 0.5))
    assert tiny_lite.logit_scale == pytest.approx(20, abs=1e-4)
    assert image_batch(tiny_lite) == 4
    features = tiny_lite.encode_image(pixels())
    torch.testing.assert_close(features, tiny_lite.towers.visual.head.proj(trunk()(pixels())), atol=0, rtol=0)  # type: ignore[union-attr,operator]
    assert features.std(0).max() > 0.05  # images differ


def test_features_of_crops_depend_on_no_neighbour(tiny_lite: Backbone) -> None:
    crops = list(np.random.default_rng(0).integers(0, 256, (6, SIZE, SIZE, 3), dtype=np.uint8))
    together = encode_crops(tiny_lite, crops)
    np.testing.assert_array_equal(encode_crops(tiny_lite, crops[4:5])[0], together[4])
    plain = tiny_lite.encode_image(tiny_lite.normalize(np.stack(crops)))
    np.testing.assert_allclose(together, plain, atol=1e-4, rtol=0)


def test_activations_and_their_gradients(tiny_lite: Backbone) -> None:
    plain = tiny_lite.encode_image(pixels())
    for layer, shape in (
        *(("conv_stem", (32, 25, 25)), ("blocks.1.0", (8, 13, 13)), ("blocks.4.2.conv_dw", (96, 4, 4))),
        *(("blocks.6", (32, 2, 2)), ("bn2", (1280, 2, 2))),
    ):
        features, activations = tiny_lite.image_activations(pixels(), layer)
        torch.testing.assert_close(features.detach(), plain, atol=1e-6, rtol=0)
        (gradient,) = torch.autograd.grad(features.sum(), activations)
        assert activations.shape == gradient.shape == (3, *shape)
        assert gradient.abs().max() > 0
    # behind the last map come its mean and the projection, so every position counts alike
    direction = torch.arange(EMBED, dtype=torch.float32)
    features, last = tiny_lite.image_activations(pixels(), "bn2")
    (gradient,) = torch.autograd.grad((features @ direction).sum(), last)
    weight = tiny_lite.towers.visual.head.proj.weight  # type: ignore[union-attr]
    torch.testing.assert_close(gradient, (weight.T @ direction / 4)[None, :, None, None].expand_as(gradient))
    assert not tiny_lite.encode_image(pixels()).requires_grad


def test_what_it_has_not(tiny_lite: Backbone) -> None:
    with pytest.raises(UserError, match=r"no image layer 'blocks\.7'; a layer is, for instance, 'conv_head'"):
        tiny_lite.image_activations(pixels(), "blocks.7")
    with pytest.raises(
        UserError, match=r"lite: .* EfficientNet-Lite, which has no attention maps; use a backbone with"
    ):
        tiny_lite.attention_maps(pixels())


def test_bfloat16_holds_for_pointwise_convolutions_alone(lite: Path, tiny_lite: Backbone) -> None:
    coarse = load_backbone(lite, precision="bfloat16")
    coarsened = {name for name, weight in coarse.towers.named_parameters() if weight.dtype == torch.bfloat16}
    pointwise = {name for name, weight in coarse.towers.named_parameters() if weight.shape[2:] == (1, 1)}
    assert coarsened == pointwise != set()
    features = coarse.encode_image(pixels())
    exact = tiny_lite.encode_image(pixels())
    assert features.dtype == torch.float32
    assert not torch.equal(features, exact)
    assert F.cosine_similarity(features, exact).min() > 0.99


@pytest.mark.parametrize("fast", [False, True])
def test_a_pointwise_convolution_in_bfloat16(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs, weights and outputs are rounded, sums are not: within one step of bfloat16 (2^-8), with and without its units."""
    monkeypatch.setattr(efficientnet_lite, "has_bfloat16", lambda: fast)
    generator = torch.Generator().manual_seed(0)
    x, layer = torch.randn(2, 24, 5, 5, generator=generator), Convolution(24, 8).requires_grad_(False)
    layer.to(torch.bfloat16)
    rounded, weight = x.bfloat16().double(), layer.weight.double()
    expected = torch.einsum("bihw,oi->bohw", rounded, weight[:, :, 0, 0])
    found = layer(x)
    assert found.dtype == torch.float32
    assert torch.equal(found, found.bfloat16().float())
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=2**-8)


def test_gradients_pass_through_bfloat16(lite: Path) -> None:
    coarse = load_backbone(lite, precision="bfloat16")
    features, kept = coarse.image_activations(pixels(), "blocks.3")
    features.sum().backward()  # type: ignore[no-untyped-call]
    assert kept.dtype == torch.float32
    assert kept.grad is not None
    assert kept.grad.abs().sum() > 0


def test_int8_is_refused(lite: Path) -> None:
    with pytest.raises(
        UserError, match="lite: precision int8 is not known to keep its image features; choose float32 or bfloat16"
    ) as caught:
        load_backbone(lite, precision="int8")
    assert "\n" not in str(caught.value)


# -- what a folder may say


@pytest.mark.parametrize("how", ["no counters", "tag of the weights", "no pooling", "another way to say it"])
def test_the_same_model_has_the_same_fingerprint(how: str, lite: Path, tiny_lite: Backbone) -> None:
    if how == "no counters":
        state = load_file(lite / WEIGHTS)
        save_file({k: v for k, v in state.items() if "num_batches" not in k}, lite / WEIGHTS)
    elif how == "tag of the weights":
        edit(lite, "vision_cfg", timm_model_name="tf_efficientnet_lite0.in1k")
    elif how == "no pooling":  # open_clip's default is the mean on both sides
        edit_json(lite / CONFIG, lambda c: c["model_cfg"]["vision_cfg"].pop("timm_pool"))
        edit_json(lite / CONFIG, lambda c: c["model_cfg"]["text_cfg"].pop("hf_pooler_type"))
    else:
        edit(lite, "vision_cfg", timm_pool="", timm_proj_bias=False, timm_model_pretrained=False)
    again = load_backbone(lite)
    assert again.fingerprint == tiny_lite.fingerprint
    torch.testing.assert_close(again.encode_image(pixels()), tiny_lite.encode_image(pixels()), atol=0, rtol=0)


def test_whatever_changes_a_feature_changes_the_fingerprint(lite: Path, tiny_lite: Backbone) -> None:
    seen, before = {tiny_lite.fingerprint}, (lite / CONFIG).read_text()
    for number, (part, setting) in enumerate(
        (
            ("vision_cfg", {"timm_model_name": "efficientnet_lite0"}),
            ("vision_cfg", {"image_size": 64}),
            ("text_cfg", {"hf_pooler_type": "cls_last_hidden_state_pooler"}),
        ),
        start=2,
    ):
        edit(lite, part, **setting)
        seen.add(load_backbone(lite).fingerprint)
        assert len(seen) == number
        (lite / CONFIG).write_text(before)


def test_a_bias_of_the_projection(lite: Path, tiny_lite: Backbone) -> None:
    edit(lite, "vision_cfg", timm_proj_bias=True)
    assert "lacks 'visual.head.proj.bias'" in refusal(lite)
    bias = torch.arange(EMBED, dtype=torch.float32)
    save_file({**load_file(lite / WEIGHTS), "visual.head.proj.bias": bias}, lite / WEIGHTS)
    found = load_backbone(lite).encode_image(pixels())
    torch.testing.assert_close(found, tiny_lite.encode_image(pixels()) + bias, atol=1e-5, rtol=0)
    edit(lite, "vision_cfg", timm_proj_bias=False)
    assert "has unexpected 'visual.head.proj.bias'" in refusal(lite)


@pytest.mark.parametrize(
    ("part", "setting", "words"),
    [
        ("vision_cfg", {"timm_pool": "abs_attn"}, "timm_pool 'abs_attn' is not supported, only 'avg'"),
        ("vision_cfg", {"timm_pool": "tok"}, "timm_pool 'tok' is not supported, only 'avg'"),
        ("vision_cfg", {"timm_proj": "mlp"}, "timm_proj 'mlp' is not supported, only 'linear'"),
        ("vision_cfg", {"timm_proj_bias": 1}, "timm_proj_bias is 1, must be true or false"),
        ("vision_cfg", {"timm_model_kwargs": {"pad_type": ""}}, "timm_model_kwargs"),
        ("vision_cfg", {"timm_model_name": "tf_efficientnet_b0"}, "'tf_efficientnet_b0' is not supported; of the Effi"),
        ("vision_cfg", {"timm_model_name": "efficientnet_lite5"}, "'efficientnet_lite5' is not supported; of the Effi"),
        ("vision_cfg", {"timm_model_name": "tf_efficientnet_lite1"}, "lacks 'visual.trunk.blocks.1.2.conv_dw.weight'"),
        ("vision_cfg", {"timm_model_name": "vit_base_patch16_224"}, "timm_pool 'avg' is not supported, only 'tok' or"),
        ("vision_cfg", {"image_size": 0}, "image_size is 0, must be a whole number of at least 1"),
        ("vision_cfg", {"image_size": [50, 50]}, "image_size is [50, 50]"),
        ("preprocess_cfg", {"interpolation": "bilinear"}, "interpolation 'bilinear' is not supported"),
    ],
)
def test_settings_that_cannot_be_used_are_named(lite: Path, part: str, setting: dict, words: str) -> None:
    edit(lite, part, **setting)
    assert words in refusal(lite)


def test_tensors_that_do_not_fit_are_named(lite: Path) -> None:
    state = load_file(lite / WEIGHTS)
    trunk = "visual.trunk."
    for key in ("conv_stem.weight", "bn1.running_var", "blocks.3.0.conv_pwl.weight", "blocks.6.0.bn3.bias", "bn2.bias"):
        save_file({k: v for k, v in state.items() if k != trunk + key}, lite / WEIGHTS)
        assert f"lacks '{trunk}{key}'" in refusal(lite)
    for key, wrong in (
        ("conv_stem.weight", torch.zeros(0)),
        ("blocks.2.1.conv_dw.weight", torch.zeros(48, 1, 3, 3)),
        ("bn2.running_mean", torch.zeros(7)),
    ):
        save_file({**state, trunk + key: wrong}, lite / WEIGHTS)
        assert f"'{trunk}{key}' has shape {list(wrong.shape)}" in refusal(lite)
    save_file({**state, trunk + "bn2.running_var": torch.full((1280,), math.nan)}, lite / WEIGHTS)
    assert f"'{trunk}bn2.running_var' holds values that are not finite" in refusal(lite)
    save_file({**state, trunk + "blocks.1.2.conv_dw.weight": torch.zeros(48, 1, 3, 3)}, lite / WEIGHTS)
    assert f"has unexpected '{trunk}blocks.1.2.conv_dw.weight'" in refusal(lite)


CONFIG = "open_clip_config.json"


def edit(folder: Path, part: str, **setting: object) -> None:
    edit_json(folder / CONFIG, lambda c: {**c, **c["model_cfg"]}[part].update(setting))
