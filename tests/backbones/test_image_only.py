"""Image towers without a text tower: features by value, refusals of folders, and what takes texts."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from backbones.folders import edit_json, refusal
from backbones.tiny_image_only import forward, write_dinov2, write_timm, write_vit
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.families import family
from biomedcoop.backbones.registry import check_model, check_place, has_text_tower
from biomedcoop.errors import Note, UserError
from biomedcoop.explain.channels import spatial

LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "dinov2": write_dinov2,
    "dinov2, positions of its input": lambda folder: write_dinov2(folder, stored=28),
    "dinov2 with registers": lambda folder: write_dinov2(folder, registers=4),
    "vit": write_vit,
    "vit without pooler": lambda folder: write_vit(folder, pooler=False),
    "vit with a classifier": lambda folder: write_vit(folder, pooler=False, head=True),
    "timm": write_timm,
    "timm without layer scale": lambda folder: write_timm(folder, layer_scale=False),
}


def largest_difference(folder: Path, images: int = 3) -> float:
    """Of our features and those of the plain computation."""
    backbone = load_backbone(folder)
    pixels = torch.randn(
        images, 3, backbone.image_size, backbone.image_size, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        ours, theirs = backbone.encode_image(pixels), forward(folder, pixels)
    assert ours.std(0).mean() > 0.1
    return float((ours - theirs).abs().max())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_features_are_those_of_a_plain_computation(layout: str, tmp_path: Path) -> None:
    folder = LAYOUTS[layout](tmp_path / "model")
    assert largest_difference(folder) < 1e-5  # float32, values about 1
    assert not load_backbone(folder).has_text_tower
    assert not has_text_tower(folder)


@pytest.mark.slow
def test_dinov2_small_of_full_size(tmp_path: Path) -> None:
    """ViT-S/14 as published: positions for 518 px, input of 224 px."""
    folder = write_dinov2(tmp_path / "dinov2", width=384, layers=12, heads=6, patch=14, stored=518, size=224)
    assert largest_difference(folder, images=2) < 1e-4
    backbone = load_backbone(folder)
    assert (backbone.image_size, backbone.embed_dim) == (224, 384)
    check_place("dinov2-vit-s-14", folder)
    check_model("dinov2-vit-s-14", folder, backbone)
    assert (
        sum(parameter.numel() for parameter in backbone.towers.parameters()) == 22_056_576 - 384 - (37**2 - 16**2) * 384
    )


def test_pickled_weights_and_half_precision_load_too(tmp_path: Path) -> None:
    folder = write_vit(tmp_path / "vit")
    pixels = torch.randn(2, 3, 32, 32)
    first = load_backbone(folder)
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    again = load_backbone(folder)
    assert again.fingerprint == first.fingerprint
    (folder / "pytorch_model.bin").unlink()  # it stays mapped
    torch.save({key: value.half() for key, value in state.items()}, folder / "pytorch_model.bin")
    coarse = load_backbone(folder)
    assert coarse.fingerprint != first.fingerprint
    with torch.no_grad():
        assert torch.equal(again.encode_image(pixels), first.encode_image(pixels))
        torch.testing.assert_close(coarse.encode_image(pixels), first.encode_image(pixels), atol=0.02, rtol=0)


def test_the_fingerprint_belongs_to_the_input_size(tmp_path: Path) -> None:
    small, large = write_dinov2(tmp_path / "small"), write_dinov2(tmp_path / "large", size=35)
    assert load_backbone(small).fingerprint != load_backbone(large).fingerprint
    assert load_backbone(small).fingerprint == load_backbone(write_dinov2(tmp_path / "again")).fingerprint


def test_maps_have_the_features_of_a_plain_pass(tmp_path: Path) -> None:
    backbone = load_backbone(write_dinov2(tmp_path / "model"))
    pixels = torch.randn(2, 3, 28, 28)
    plain = backbone.encode_image(pixels)
    features, tokens = backbone.image_activations(pixels, backbone.map_layer)
    assert tokens.shape == (2, 17, 48)
    torch.testing.assert_close(features, plain, atol=1e-5, rtol=0)
    features.sum().backward(inputs=[tokens])
    assert float(tokens.grad.abs().sum()) > 0
    features, maps = backbone.attention_maps(pixels)
    torch.testing.assert_close(features, plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(maps[-1].sum(-1), torch.ones(2, 3, 17), atol=1e-5, rtol=0)


def test_maps_leave_registers_out(tmp_path: Path) -> None:
    backbone = load_backbone(write_dinov2(tmp_path / "model", registers=4))
    assert backbone.registers == 4
    pixels = torch.randn(2, 3, 28, 28)
    _, tokens = backbone.image_activations(pixels, backbone.map_layer)
    assert tokens.shape == (2, 1 + 4 + 16, 48)
    places = spatial(tokens, backbone, backbone.map_layer)
    assert torch.equal(places.flatten(2).transpose(1, 2), tokens.detach()[:, 5:])


def test_texts_are_refused_in_one_line(tmp_path: Path) -> None:
    backbone = load_backbone(write_vit(tmp_path / "model"))
    ids, embeddings, mask = (
        torch.zeros(1, 3, dtype=torch.int64),
        torch.zeros(1, 3, 8),
        torch.ones(1, 3, dtype=torch.bool),
    )
    calls: list[Callable[[], Any]] = [
        lambda: backbone.encode_text(["a cyst"]),
        lambda: backbone.token_counts(["a cyst"]),
        backbone.vocabulary,
        lambda: backbone.embed_tokens(ids),
        lambda: backbone.encode_text_embeddings(embeddings, mask),
    ]
    for call in calls:
        with pytest.raises(UserError, match="model has no text tower; choose a backbone with one"):
            call()


def test_a_shipped_backbone_and_one_that_is_not_here_have_a_text_tower() -> None:
    assert has_text_tower("mini")
    assert has_text_tower("biomedclip")


FAULTS = {
    "hidden_act 'relu'": ("config.json", {"hidden_act": "relu"}),
    "use_swiglu_ffn 'True'": ("config.json", {"use_swiglu_ffn": True}),
    "no multiple of 5 heads": ("config.json", {"num_attention_heads": 5}),
    "lacks 'encoder.layer.2.": ("config.json", {"num_hidden_layers": 3}),
    "unexpected 'encoder.layer.1.": ("config.json", {"num_hidden_layers": 1}),
    "model_type in config.json is 'beit'": ("config.json", {"model_type": "beit"}),
    "model_type in config.json is None": ("config.json", {"model_type": None}),
    "layer_norm_eps holds 'small'": ("config.json", {"layer_norm_eps": "small"}),
    "does not tell image_mean": ("preprocessor_config.json", {"image_mean": None}),
    "is not a square": ("preprocessor_config.json", {"crop_size": {"height": 28, "width": 35}}),
    "no multiple of the patches of 7 px": ("preprocessor_config.json", {"crop_size": 30}),
    "do_normalize 'False'": ("preprocessor_config.json", {"do_normalize": False}),
}


@pytest.mark.parametrize("line", FAULTS)
def test_a_faulty_configuration_is_refused(line: str, tmp_path: Path) -> None:
    folder = write_dinov2(tmp_path / "model")
    file, change = FAULTS[line]
    edit_json(folder / file, lambda content: content.update(change))
    assert line in refusal(folder)


OTHERS: list[dict[str, Any]] = [
    {"architecture": "convnext_tiny.fb_in22k"},
    {"architecture": "resnet50d.ra2_in1k"},
    {"architecture": "vit_base_patch16_rpn_224"},
    {"global_pool": "avg"},
    {"model_args": {"act_layer": "relu"}},
    {"model_args": {"global_pool": "avg"}},
    {"model_args": {"qkv_bias": False}},
]


@pytest.mark.parametrize("change", OTHERS)
def test_other_designs_of_timm_are_computed_by_timm(change: dict[str, Any], tmp_path: Path) -> None:
    folder = write_timm(tmp_path / "model")
    assert family(folder) == "vit-timm"
    edit_json(folder / "config.json", lambda content: content.update(change))
    assert family(folder) == "timm"


TIMM_FAULTS = {
    "lacks 'blocks.10.": {"model_args": {}},
    "input_size 40 in config.json, 32 in the weights": {
        "pretrained_cfg": {"input_size": [3, 40, 40], "mean": [0.5] * 3, "std": [0.5] * 3}
    },
    "input_size is None": {"pretrained_cfg": {"mean": [0.5] * 3}},
    "'model_args' is not an object": {"model_args": ["embed_dim"]},
}


@pytest.mark.parametrize("line", TIMM_FAULTS)
def test_a_faulty_configuration_of_timm_is_refused(line: str, tmp_path: Path) -> None:
    folder = write_timm(tmp_path / "model")
    edit_json(folder / "config.json", lambda content: content.update(TIMM_FAULTS[line]))
    assert line in refusal(folder)


def test_faulty_tensors_are_refused_by_name(tmp_path: Path) -> None:
    folder = write_dinov2(tmp_path / "model")
    state, file = load_file(folder / "model.safetensors"), folder / "model.safetensors"
    bias = "encoder.layer.1.attention.attention.key.bias"
    save_file({key: value for key, value in state.items() if key != bias}, file)
    assert f"lacks '{bias}'" in refusal(folder)
    save_file({**state, "register_tokens": torch.zeros(4)}, file)
    assert "unexpected 'register_tokens'" in refusal(folder)
    save_file({**state, "layernorm.weight": torch.full((48,), torch.nan)}, file)
    assert "not finite" in refusal(folder)
    save_file({**state, "layernorm.weight": torch.zeros(47)}, file)
    assert "'layernorm.weight' has shape [47], expected [48]" in refusal(folder)
    save_file({**state, "embeddings.position_embeddings": torch.zeros(1, 20, 48)}, file)
    assert "20 positions" in refusal(folder)
    file.unlink()
    assert "has neither model.safetensors nor pytorch_model.bin" in refusal(folder)
    (folder / "preprocessor_config.json").unlink()
    assert "has no preprocessor_config.json" in refusal(folder)


def test_what_timm_asks_for_and_is_not_followed_is_said(tmp_path: Path) -> None:
    folder = write_timm(tmp_path / "model")
    edit_json(folder / "config.json", lambda c: c["pretrained_cfg"].update(crop_pct=0.9, interpolation="bilinear"))
    with pytest.warns(Note, match=r"asks for crop_pct 0.9 .* and interpolation 'bilinear' .*: not followed"):
        load_backbone(folder)
    edit_json(folder / "config.json", lambda c: c["pretrained_cfg"].update(crop_pct=1.0, interpolation="bicubic"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", Note)
        load_backbone(folder)
