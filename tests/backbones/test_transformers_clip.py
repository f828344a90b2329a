"""CLIP in the layout of transformers: the numbers of transformers, the fingerprint of the same weights elsewhere, what is refused.

``clip_golden.json`` holds what transformers computes from these tensors; ``tiny_clip.py`` says how it was made.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from backbones.folders import edit_json, refusal
from backbones.tiny_clip import CONTEXT, EMBED, GOLDEN, TEXT_WIDTH, TEXTS, pixels, vit_state, vocabulary
from backbones.tiny_transformers_clip import BIN, CONFIG, PREPROCESSING, WEIGHTS, position_ids, write_transformers
from biomedcoop.backbones import BACKBONES, load_backbone, locate
from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.convert import convert


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder of the tiny ViT, to be spoilt."""
    return write_transformers(tmp_path / "clip")


def change_state(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    state = {key: value.clone() for key, value in load_file(folder / WEIGHTS).items()}
    change(state)
    save_file(state, folder / WEIGHTS)


# -- what is loaded


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_both_towers_compute_what_transformers_computes(activation: str, tmp_path: Path) -> None:
    golden = json.loads(GOLDEN.read_text())
    backbone = load_backbone(write_transformers(tmp_path / "clip", activation))
    with torch.no_grad():
        np.testing.assert_allclose(backbone.encode_image(pixels()), golden[activation]["image"], atol=1e-5, rtol=0)
        np.testing.assert_allclose(backbone.encode_text(TEXTS), golden[activation]["text"], atol=1e-5, rtol=0)
    assert [row.tolist() for row in map(backbone.tokenize, ([text] for text in TEXTS))] == [
        [row] for row in golden["tokens"]
    ]


def test_the_same_weights_in_another_layout_are_the_same_backbone(folder: Path, tiny_clip_vit: Backbone) -> None:
    backbone = load_backbone(folder)
    assert backbone.fingerprint == tiny_clip_vit.fingerprint
    torch.testing.assert_close(backbone.encode_image(pixels()), tiny_clip_vit.encode_image(pixels()), atol=0, rtol=0)
    torch.testing.assert_close(backbone.encode_text(TEXTS), tiny_clip_vit.encode_text(TEXTS), atol=0, rtol=0)
    assert (backbone.name, backbone.image_size, backbone.context_length) == ("clip", 32, CONTEXT)
    assert (backbone.embed_dim, backbone.token_dim) == (EMBED, TEXT_WIDTH)
    assert backbone.logit_scale == pytest.approx(20, rel=1e-6)
    assert (backbone.mean, backbone.std) == (tiny_clip_vit.mean, tiny_clip_vit.std)


@pytest.mark.parametrize("name", ["clip-vit-b-16", "clip-vit-b-32", "pubmedclip"])
def test_the_files_of_the_catalogue_are_all_it_needs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIOMEDCOOP_CACHE", str(tmp_path))
    monkeypatch.setitem(BACKBONES, name, replace(BACKBONES[name], model=None))  # type: ignore[arg-type]  # the tiny one is none
    folder = write_transformers(tmp_path / "backbones" / name)
    old_files(folder)
    (folder / "merges.txt").rename(folder / "other.txt")
    assert locate(name) is None
    (folder / "other.txt").rename(folder / "merges.txt")
    assert locate(name) == folder
    assert {path.name for path in folder.iterdir()} == set(BACKBONES[name].files)
    assert load_backbone(name).name == name


def old_files(folder: Path) -> None:
    """``.bin`` with ``position_ids``, and OpenAI's own ``eos_token_id``, as the models on the hub have them."""
    torch.save(load_file(folder / WEIGHTS) | position_ids(), folder / BIN)
    (folder / WEIGHTS).unlink()
    edit_json(folder / CONFIG, lambda c: c["text_config"].update(eos_token_id=2, bos_token_id=0, pad_token_id=1))
    edit_json(folder / CONFIG, lambda c: c.update(text_config_dict=None, vision_config_dict=None))


def older_sections(folder: Path) -> None:
    """Of the two sections of a tower, the second counts."""

    def move(content: dict) -> None:
        for key in ("text_config", "vision_config"):
            content[f"{key}_dict"] = content[key]
            content[key] = {"hidden_size": 12345}

    edit_json(folder / CONFIG, move)


def newer_preprocessing(folder: Path) -> None:
    """One file for all of the processor, and sizes by name, as transformers 5 writes them."""
    values = json.loads((folder / PREPROCESSING).read_text())
    (folder / PREPROCESSING).unlink()
    values |= {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, "do_convert_rgb": True}
    values |= {"do_rescale": True, "rescale_factor": 0.00392156862745098, "image_processor_type": "CLIPImageProcessor"}
    content = {"image_processor": values, "processor_class": "CLIPProcessor"}
    (folder / "processor_config.json").write_text(json.dumps(content))


def defaults_left_out(folder: Path) -> None:
    for key in ("hidden_act", "layer_norm_eps", "max_position_embeddings"):
        edit_json(folder / CONFIG, lambda c, key=key: [c[s].pop(key, None) for s in ("text_config", "vision_config")])
    (folder / PREPROCESSING).write_text('{"size": 32, "crop_size": 32}')


@pytest.mark.parametrize("change", [old_files, older_sections, newer_preprocessing, defaults_left_out])
def test_variants_of_the_layout(change: Callable[[Path], None], folder: Path, tiny_clip_vit: Backbone) -> None:
    change(folder)
    assert load_backbone(folder).fingerprint == tiny_clip_vit.fingerprint


def test_the_preprocessing_counts(folder: Path, tiny_clip_vit: Backbone) -> None:
    edit_json(folder / PREPROCESSING, lambda c: c.update(image_mean=[0.5, 0.4, 0.3], image_std=[0.1, 0.2, 0.3]))
    backbone = load_backbone(folder)
    assert (backbone.mean, backbone.std) == ((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
    assert backbone.fingerprint != tiny_clip_vit.fingerprint


# -- what cannot be used


@pytest.mark.parametrize(
    ("section", "setting", "words"),
    [
        (None, {"model_type": "blip"}, "model_type in config.json is 'blip'; only models of type 'clip'"),
        (None, {"model_type": None}, "model_type in config.json is None; only models of type 'clip'"),
        (None, {"projection_dim": 64}, "projection_dim 64 in config.json, 48 in the weights"),
        (None, {"text_config": 3}, "'text_config' is not an object"),
        ("text_config", {"num_hidden_layers": 3}, "lacks 'text_model.encoder.layers.2."),
        ("text_config", {"num_hidden_layers": 1}, "has unexpected 'text_model.encoder.layers.1."),
        ("text_config", {"num_attention_heads": 3}, "the text tower's width 40 is no multiple of 3 heads"),
        ("text_config", {"hidden_size": 512}, "text_config hidden_size 512 in config.json, 40 in the weights"),
        (
            "text_config",
            {"intermediate_size": 99},
            "text_config intermediate_size 99 in config.json, 80 in the weights",
        ),
        ("text_config", {"vocab_size": 49408}, "text_config vocab_size 49408 in config.json, 590 in the weights"),
        (
            "text_config",
            {"max_position_embeddings": 60},
            "max_position_embeddings 60 in config.json, 77 in the weights",
        ),
        ("text_config", {"eos_token_id": 7}, "eos_token_id is 7 in config.json, 589 in the tokenizer"),
        ("text_config", {"eos_token_id": None}, "eos_token_id is 49407 in config.json, 589 in the tokenizer"),
        ("text_config", {"hidden_act": "relu"}, "hidden_act 'relu' is not supported, only 'quick_gelu' or 'gelu'"),
        ("text_config", {"hidden_act": "gelu"}, "hidden_act is 'gelu' in text_config, 'quick_gelu' in vision_config"),
        ("text_config", {"layer_norm_eps": 1e-6}, "layer_norm_eps '1e-06' is not supported, only '1e-05'"),
        ("vision_config", {"num_hidden_layers": "2"}, "vision_config num_hidden_layers is '2', must be a whole number"),
        ("vision_config", {"num_hidden_layers": 3}, "lacks 'vision_model.encoder.layers.2."),
        ("vision_config", {"num_attention_heads": 3}, "hidden_size 64 is no multiple of num_attention_heads 3"),
        ("vision_config", {"hidden_size": 128}, "vision_config hidden_size 128 in config.json, 64 in the weights"),
        ("vision_config", {"patch_size": 16}, "vision_config patch_size 16 in config.json, 8 in the weights"),
        ("vision_config", {"image_size": 64}, "size of the preprocessing is 32, vision_config image_size is 64"),
    ],
)
def test_settings_that_cannot_be_used_are_named(folder: Path, section: str | None, setting: dict, words: str) -> None:
    edit_json(folder / CONFIG, lambda c: (c[section] if section else c).update(setting))
    assert words in refusal(folder)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"resample": 2}, "resample 'BILINEAR' is not supported, only 'BICUBIC'"),
        ({"resample": 17}, "17 is not a valid Resampling"),
        ({"do_resize": False}, "do_resize 'False' is not supported, only 'True'"),
        ({"do_center_crop": False}, "do_center_crop 'False' is not supported, only 'True'"),
        ({"do_rescale": False}, "do_rescale 'False' is not supported"),
        ({"rescale_factor": 1.0}, "rescale_factor '1.0' is not supported"),
        ({"do_normalize": False}, "do_normalize 'False' is not supported"),
        (
            {"size": {"height": 32, "width": 32}},
            "size {'height': 32, 'width': 32} is not supported, only a shortest_edge",
        ),
        ({"size": 36}, "size of the preprocessing is 36, vision_config image_size is 32"),
        ({"size": None}, "size of the preprocessing is 224, vision_config image_size is 32"),
        ({"crop_size": {"height": 32, "width": 16}}, "is not supported, only a square"),
        ({"crop_size": 28}, "crop_size of the preprocessing is 28, vision_config image_size is 32"),
        ({"image_std": [0.5, 0.5, 0]}, "image_std holds 0, must be a finite number above 0"),
        ({"image_mean": 0.5}, "image_mean is 0.5, must be a list of three numbers"),
    ],
)
def test_another_preprocessing_is_refused(folder: Path, setting: dict, words: str) -> None:
    edit_json(folder / PREPROCESSING, lambda c: c.update(setting))
    assert words in refusal(folder)


def test_missing_files_are_named(folder: Path) -> None:
    for file, words in (
        ("merges.txt", "no tokenizer.json or vocab.json with merges.txt; copy the tokenizer files"),
        (WEIGHTS, "has neither model.safetensors nor pytorch_model.bin; copy the weights into it"),
        (PREPROCESSING, "has no preprocessor_config.json; copy that of the model into it"),
        (CONFIG, "is not a backbone: it has no open_clip_config.json or config.json"),
    ):
        (folder / file).unlink()
        assert words in refusal(folder)


@pytest.mark.parametrize(
    "key",
    [
        *("logit_scale", "visual_projection.weight", "text_projection.weight", "vision_model.pre_layrnorm.bias"),
        *("text_model.encoder.layers.1.self_attn.k_proj.weight", "vision_model.encoder.layers.0.mlp.fc2.bias"),
    ],
)
def test_missing_and_extra_tensors_are_named(folder: Path, key: str) -> None:
    change_state(folder, lambda s: s.pop(key))
    assert f"lacks '{key}'" in refusal(folder)
    change_state(folder, lambda s: s.update({f"{key}.more": torch.ones(1)}))
    assert f"lacks '{key}'" in refusal(folder)
    write_transformers(folder)
    change_state(folder, lambda s: s.update({f"{key}.more": torch.ones(1)}))
    assert f"has unexpected '{key}.more'" in refusal(folder)


def test_weights_of_another_architecture_are_refused(folder: Path) -> None:
    blip = ("vision_model.embeddings.class_embedding", "text_decoder.bert.embeddings.word_embeddings.weight")
    save_file({key: torch.ones(3) for key in blip}, folder / WEIGHTS)
    assert "lacks 'logit_scale', " in (message := refusal(folder))
    assert message.endswith("more; it is damaged or of another architecture")


@pytest.mark.parametrize(
    "key",
    [
        "vision_model.embeddings.patch_embedding.weight",
        "vision_model.embeddings.position_embedding.weight",
        "vision_model.encoder.layers.1.mlp.fc1.weight",
        "vision_model.encoder.layers.1.self_attn.v_proj.bias",
        "text_model.encoder.layers.0.self_attn.q_proj.weight",
        "text_model.embeddings.token_embedding.weight",
        "text_model.final_layer_norm.weight",
        "visual_projection.weight",
    ],
)
def test_wrong_shapes_are_named(folder: Path, key: str) -> None:
    state = load_file(folder / WEIGHTS)
    for wrong in (torch.zeros(()), state[key][None].contiguous(), torch.zeros(0)):
        save_file({**state, key: wrong}, folder / WEIGHTS)
        message = refusal(folder)
        assert f"'{key}'" in message
        assert str(list(wrong.shape)) in message


def test_joined_tensors_of_a_wrong_shape_are_named(folder: Path) -> None:
    block = "text_model.encoder.layers.0.self_attn."

    def cut(names: str) -> Callable[[dict[str, torch.Tensor]], None]:
        return lambda s: s.update({k: s[k][:8].clone() for k in (f"{block}{n}_proj.bias" for n in names)})

    change_state(folder, cut("v"))
    assert f"'{block}v_proj.bias' is torch.float32 of shape [8], '{block}q_proj.bias'" in refusal(folder)
    change_state(folder, cut("qkv"))
    assert f"'{block}{{q,k,v}}_proj.bias' has shape [24], expected [120]" in refusal(folder)
    write_transformers(folder)
    change_state(folder, lambda s: s.update({f"{block}k_proj.bias": torch.ones(TEXT_WIDTH, dtype=torch.int64)}))
    assert f"'{block}k_proj.bias' is torch.int64 of shape [40]" in refusal(folder)


def test_values_that_are_not_finite_are_named(folder: Path) -> None:
    for key, name in (
        (
            "text_model.encoder.layers.0.self_attn.k_proj.bias",
            "text_model.encoder.layers.0.self_attn.{q,k,v}_proj.bias",
        ),
        ("vision_model.post_layernorm.weight", "vision_model.post_layernorm.weight"),
    ):
        write_transformers(folder)
        change_state(folder, lambda s, key=key: s[key].fill_(math.nan))
        assert f"'{name}' holds values that are not finite" in refusal(folder)


def test_the_original_pubmedclip_replaces_the_weights_beside_it(folder: Path) -> None:
    """As its authors' code lays it over ViT-B/32."""
    before = load_backbone(folder)
    state = {key: 1.1 * value for key, value in vit_state().items()}
    torch.save({"state_dict": {key: value.half() for key, value in state.items()}}, folder / "PubMedCLIP_ViT32.pth")
    laid_over = load_backbone(folder)
    assert laid_over.fingerprint != before.fingerprint
    expected = state["token_embedding.weight"].half().float()
    torch.testing.assert_close(laid_over.embed_tokens(torch.arange(len(expected))), expected)
    (folder / WEIGHTS).unlink()
    assert load_backbone(folder).fingerprint == laid_over.fingerprint

    convert(folder, remove_old=True)
    assert not (folder / "PubMedCLIP_ViT32.pth").exists()
    assert load_backbone(folder).fingerprint == laid_over.fingerprint
    save_file(
        {**state, "visual.proj": state["visual.proj"][:, :7].contiguous()}, folder / "PubMedCLIP_ViT32.safetensors"
    )
    assert "'visual.proj' has shape [64, 7], expected [64, 48]" in refusal(folder)


def test_the_vocabulary_of_another_model_is_refused(folder: Path) -> None:
    ids = vocabulary()[0]
    (folder / "vocab.json").write_text(json.dumps({**ids, "one": len(ids)}))
    assert "is not the token of the highest number" in refusal(folder)
