"""OpenAI's CLIP: the numbers of transformers and of a second ResNet, its tokens, a look inside the towers, and what is refused.

Features are held to 1e-5, eight times what transformers shows (``tiny_clip.py`` says how its numbers were made).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from backbones.folders import refusal
from backbones.tiny_clip import (
    CONTEXT,
    EMBED,
    END,
    GOLDEN,
    START,
    TEXT_WIDTH,
    TEXTS,
    config,
    pixels,
    resnet,
    resnet_state,
    vit_state,
    vocabulary,
    write,
    write_resnet,
    write_vit,
)
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.clip import load_clip
from biomedcoop.backbones.clip_resnet import ResNetConfig
from biomedcoop.backbones.clip_towers import TextConfig, Towers, ViTConfig
from biomedcoop.backbones.clip_transformer import TransformerConfig
from biomedcoop.backbones.open_clip import load_open_clip
from biomedcoop.errors import UserError

CONFIG, WEIGHTS, BIN = "open_clip_config.json", "open_clip_model.safetensors", "open_clip_pytorch_model.bin"

Change = Callable[[dict], object]


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    """Folder of the tiny ViT, to be spoilt."""
    return write_vit(tmp_path / "vit")


@pytest.fixture
def golden() -> dict:
    return json.loads(GOLDEN.read_text())


def edit(path: Path, change: Change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def change_state(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    state = {key: value.clone() for key, value in load_file(folder / WEIGHTS).items()}
    change(state)
    save_file(state, folder / WEIGHTS)


# -- the numbers of others


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_both_towers_compute_what_transformers_computes(activation: str, golden: dict, tmp_path: Path) -> None:
    backbone = load_backbone(write_vit(tmp_path / "vit", quick_gelu=activation == "quick_gelu"))
    with torch.no_grad():
        image, text = backbone.encode_image(pixels()), backbone.encode_text(TEXTS)
    np.testing.assert_allclose(image, golden[activation]["image"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(text, golden[activation]["text"], atol=1e-5, rtol=0)
    # the two activations are told apart
    other = golden[{"quick_gelu": "gelu", "gelu": "quick_gelu"}[activation]]
    assert np.abs(image.numpy() - other["image"]).max() > 1e-3
    assert np.abs(text.numpy() - other["text"]).max() > 1e-3


@pytest.mark.parametrize(("size", "width", "layers"), [(32, 8, (1, 2, 1, 1)), (64, 16, (2, 1, 3, 2))])
def test_the_resnet_computes_what_its_tensors_say(size: int, width: int, layers: tuple, tmp_path: Path) -> None:
    """Against functions that know no module, torch's own multi-head attention among them."""
    state = resnet_state(width, layers, size)
    vision = {"image_size": size, "layers": list(layers), "width": width}
    backbone = load_backbone(write(tmp_path / "resnet", config(vision), state))
    x = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        np.testing.assert_allclose(backbone.encode_image(x), resnet(state, x, heads=width // 2), atol=1e-5, rtol=0)


def test_sizes_of_the_published_models() -> None:
    """Parameters of ViT-B/32 and RN50 as OpenAI's repository counts them."""
    text = TextConfig(49408, 77, TransformerConfig(512, 12, 8, 2048, quick_gelu=True, causal=True))
    blocks = TransformerConfig(768, 12, 12, 3072, quick_gelu=True, causal=False)
    with torch.device("meta"):
        vit = Towers(ViTConfig(224, 32, blocks), text, 512)
        rn50 = Towers(ResNetConfig(224, 64, (3, 4, 6, 3), 32), text, 1024)
    assert sum(p.numel() for p in vit.parameters()) == 151_277_313
    # RN50's joint space is 1024 wide: a wider text projection
    assert sum(p.numel() for p in rn50.parameters()) == 102_007_137


def test_attributes(tiny_clip_vit: Backbone, tiny_clip_resnet: Backbone) -> None:
    for backbone, name in ((tiny_clip_vit, "clip-vit"), (tiny_clip_resnet, "clip-resnet")):
        assert (backbone.name, backbone.image_size, backbone.context_length) == (name, 32, CONTEXT)
        assert (backbone.embed_dim, backbone.token_dim) == (EMBED, TEXT_WIDTH)
        assert backbone.logit_scale == pytest.approx(20, rel=1e-6)
        assert (backbone.device.type, backbone.dtype) == ("cpu", torch.float32)
        assert backbone.mean == (0.48145466, 0.4578275, 0.40821073)
        assert backbone.std == (0.26862954, 0.26130258, 0.27577711)
        assert len(backbone.fingerprint) == 32


def test_images_differ(tiny_clip_vit: Backbone, tiny_clip_resnet: Backbone) -> None:
    """Else the tests that use these models would say little."""
    for backbone in (tiny_clip_vit, tiny_clip_resnet):
        features = torch.nn.functional.normalize(backbone.encode_image(pixels()))
        assert float((features @ features.T).tril(-1).max()) < 0.9


# -- tokens


def test_token_ids_are_those_of_transformers(tiny_clip_vit: Backbone, golden: dict) -> None:
    for text, want in zip(TEXTS, golden["tokens"], strict=True):
        assert tiny_clip_vit.tokenize([text])[0].tolist() == want
    ids = tiny_clip_vit.tokenize(TEXTS)
    assert ids.shape == (len(TEXTS), CONTEXT)
    assert all(row[len(want) :].sum() == 0 for row, want in zip(ids, golden["tokens"], strict=True))
    assert len(golden["tokens"][-1]) == CONTEXT  # the long text keeps its end
    assert golden["tokens"][-1][-1] == vocabulary()[0][END]


def test_html_is_decoded_as_by_openai(tiny_clip_vit: Backbone) -> None:
    ids = tiny_clip_vit.tokenize(["a &amp;lt; b", "a < b"])
    assert ids[0].tolist() == ids[1].tolist()


def test_a_published_tokenizer_json_gives_the_same_ids(vit: Path, tiny_clip_vit: Backbone) -> None:
    """Such files name another post-processor, split words a second time by GPT-2's rule, and pad and cut."""
    content = json.loads(tiny_clip_vit.tokenizer.rust.to_str())  # type: ignore[attr-defined]
    ids = vocabulary()[0]
    content["post_processor"] = {
        **{"type": "RobertaProcessing", "sep": [END, ids[END]], "cls": [START, ids[START]]},
        **{"trim_offsets": False, "add_prefix_space": False},
    }
    content["pre_tokenizer"]["pretokenizers"][1]["use_regex"] = True
    content["truncation"] = {"max_length": 9, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    content["padding"] = {
        **{"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None},
        **{"pad_id": ids[END], "pad_type_id": 0, "pad_token": END},
    }
    (vit / "tokenizer.json").write_text(json.dumps(content))
    for file in ("vocab.json", "merges.txt"):
        (vit / file).unlink()
    backbone = load_backbone(vit)
    assert backbone.tokenize(TEXTS).tolist() == tiny_clip_vit.tokenize(TEXTS).tolist()
    assert backbone.token_counts(TEXTS) == tiny_clip_vit.token_counts(TEXTS)


def test_token_counts_see_what_is_cut(tiny_clip_vit: Backbone, golden: dict) -> None:
    counts = tiny_clip_vit.token_counts(TEXTS)
    assert counts[:-1] == [len(row) for row in golden["tokens"][:-1]]
    assert counts[-1] == 2 * 100 + 2


def test_mask_ends_with_the_text(tiny_clip_vit: Backbone, golden: dict) -> None:
    """Token 0 is the word "!" in front of padding, and padding behind the end."""
    ids = tiny_clip_vit.tokenize(TEXTS)
    mask = tiny_clip_vit.mask(ids)
    assert mask.dtype == torch.bool
    assert mask.sum(1).tolist() == [len(row) for row in golden["tokens"]]
    exclamation = tiny_clip_vit.tokenize(["!!!", "a photo of a blue cyst."])
    assert exclamation[0].tolist()[1:3] == [0, 0]
    assert tiny_clip_vit.mask(exclamation)[0].tolist() == [True] * 5 + [False] * 4


# -- the text tower


def test_padding_changes_nothing(tiny_clip_vit: Backbone) -> None:
    ids = tiny_clip_vit.tokenize(TEXTS)  # as long as the context, because of the longest
    with torch.no_grad():
        together = tiny_clip_vit.encode_text_embeddings(tiny_clip_vit.embed_tokens(ids), tiny_clip_vit.mask(ids))
        alone = torch.cat([tiny_clip_vit.encode_text([text]) for text in TEXTS])
        # whatever stands there
        noise = torch.where(tiny_clip_vit.mask(ids), ids, 7)
        other = tiny_clip_vit.encode_text_embeddings(tiny_clip_vit.embed_tokens(noise), tiny_clip_vit.mask(ids))
    np.testing.assert_allclose(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(other, together, atol=0, rtol=0)


def test_text_features_follow_the_embeddings(vit: Path) -> None:
    """The gradient, which is all that prompt learning needs, agrees with a finite difference."""
    backbone = load_backbone(vit, dtype=torch.float64)
    ids = backbone.tokenize(["a photo of a cyst.", "stone"])
    mask = backbone.mask(ids)
    embedded = backbone.embed_tokens(ids).requires_grad_()
    direction = torch.randn(embedded.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = torch.randn(EMBED, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (backbone.encode_text_embeddings(embedded, mask) @ weights).sum().backward()
    with torch.no_grad():
        ahead, behind = (
            (backbone.encode_text_embeddings(embedded + step * direction, mask) @ weights).sum()
            for step in (1e-6, -1e-6)
        )
    assert embedded.grad is not None
    assert float((embedded.grad * direction).sum()) == pytest.approx(float(ahead - behind) / 2e-6, rel=1e-5)
    assert not embedded.grad[~mask].any()
    assert embedded.grad[mask].abs().amax(-1).min() > 0


def test_dropout_is_refused(tiny_clip_vit: Backbone) -> None:
    ids = tiny_clip_vit.tokenize(["stone"])
    with pytest.raises(UserError, match=r"clip-vit: .* has no dropout; use settings={'text_dropout': 0}"):
        tiny_clip_vit.encode_text_embeddings(tiny_clip_vit.embed_tokens(ids), tiny_clip_vit.mask(ids), lambda x: x)


# -- inside the image towers


def test_activations_and_their_gradients(tiny_clip_vit: Backbone, tiny_clip_resnet: Backbone) -> None:
    direction = torch.arange(EMBED, dtype=torch.float32)
    layers = {
        tiny_clip_vit: [
            "conv1",
            "ln_pre",
            "transformer",
            *(f"transformer.resblocks.{n}" for n in ("1.ln_1", "0.attn")),
        ],
        tiny_clip_resnet: ["conv1", "bn3", "layer1", "layer2.1", "layer3.0.conv2", "layer4", "attnpool"],
    }
    for backbone, names in layers.items():
        plain = backbone.encode_image(pixels())
        assert not plain.requires_grad
        for layer in names:
            with torch.no_grad():  # as a caller may have it
                features, activations = backbone.image_activations(pixels(), layer)
            torch.testing.assert_close(features.detach(), plain, atol=1e-5, rtol=0)
            (gradient,) = torch.autograd.grad((features @ direction).sum(), activations)
            assert gradient.shape == activations.shape
            assert gradient.abs().max() > 0
        assert not backbone.encode_image(pixels()).requires_grad  # nothing stays hooked
    # where what follows is linear, the gradient is known
    features, normed = tiny_clip_vit.image_activations(pixels(), "ln_post")
    (gradient,) = torch.autograd.grad((features @ direction).sum(), normed)
    torch.testing.assert_close(gradient, (vit_state()["visual.proj"] @ direction).expand(3, -1))
    assert tiny_clip_vit.image_activations(pixels(), "transformer.resblocks.1.ln_1")[1].shape == (3, 17, 64)
    assert tiny_clip_resnet.image_activations(pixels(), "layer4")[1].shape == (3, 256, 1, 1)


def test_unknown_layers_are_refused(tiny_clip_vit: Backbone, tiny_clip_resnet: Backbone) -> None:
    for layer in ("layer4", "transformer.resblocks", "transformer.resblocks.2", ""):
        with pytest.raises(
            UserError, match=rf"no image layer '{layer}'; a layer is, for instance, 'transformer\.resblocks\.1\.ln_1'"
        ):
            tiny_clip_vit.image_activations(pixels(), layer)
    with pytest.raises(UserError, match="no image layer 'transformer'; a layer is, for instance, 'layer4'"):
        tiny_clip_resnet.image_activations(pixels(), "transformer")


def test_attention_maps(tiny_clip_vit: Backbone, tiny_clip_resnet: Backbone) -> None:
    features, found = tiny_clip_vit.attention_maps(pixels())
    torch.testing.assert_close(features, tiny_clip_vit.encode_image(pixels()), atol=1e-5, rtol=0)
    assert all(attention.abs().max() > 0 for attention in torch.autograd.grad(features.sum(), found))
    maps = torch.stack(found, dim=1).detach()
    assert maps.shape == (3, 2, 2, 17, 17)
    assert float(maps.min()) >= 0
    torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:-1]))
    # they are the weights that the tower itself uses: with them the forward pass is done again
    visual = tiny_clip_vit.towers.visual  # type: ignore[attr-defined]
    with torch.no_grad():
        x = visual.embed(pixels())
        for index, block in enumerate(visual.transformer.resblocks):
            values = block.attn.queries_keys_values(block.ln_1(x))[2]
            x = x + block.attn.out_proj((maps[:, index] @ values).transpose(1, 2).flatten(2))
            x = x + block.mlp(block.ln_2(x))
        np.testing.assert_allclose(
            visual.ln_post(x[:, 0]) @ visual.proj, tiny_clip_vit.encode_image(pixels()), atol=1e-5, rtol=0
        )
    with pytest.raises(UserError, match=r"clip-resnet: .* ResNet, which has no attention maps"):
        tiny_clip_resnet.attention_maps(pixels())


def test_batch_normalisation_never_looks_at_the_batch(tmp_path: Path) -> None:
    backbone = load_backbone(write_resnet(tmp_path / "resnet"))
    together = backbone.encode_image(pixels())
    backbone.towers.train()  # type: ignore[attr-defined]
    torch.testing.assert_close(backbone.encode_image(pixels()), together, atol=0, rtol=0)
    torch.testing.assert_close(backbone.encode_image(pixels()[:1]), together[:1], atol=1e-5, rtol=0)


# -- one fingerprint per model


@pytest.mark.parametrize("how", ["bin", "custom_text", "no counters"])
@pytest.mark.parametrize("kind", [write_vit, write_resnet])
def test_the_same_tensors_have_the_same_fingerprint(kind: Callable[[Path], Path], how: str, tmp_path: Path) -> None:
    folder = kind(tmp_path / "model")
    first = load_backbone(folder)
    state = load_file(folder / WEIGHTS)
    if how == "bin":
        (folder / WEIGHTS).unlink()
        torch.save(state, folder / BIN)
    elif how == "custom_text":
        edit(folder / CONFIG, lambda c: c["model_cfg"].update(custom_text=True))
        apart = ("visual.", "logit_scale")
        save_file({k if k.startswith(apart) else f"text.{k}": v for k, v in state.items()}, folder / WEIGHTS)
    else:
        save_file({k: v for k, v in state.items() if "num_batches" not in k}, folder / WEIGHTS)
    second = load_backbone(folder)
    assert second.fingerprint == first.fingerprint
    torch.testing.assert_close(second.encode_image(pixels()), first.encode_image(pixels()), atol=0, rtol=0)
    torch.testing.assert_close(second.encode_text(TEXTS), first.encode_text(TEXTS), atol=0, rtol=0)


def test_half_precision_is_widened(tmp_path: Path) -> None:
    for kind in (write_vit, write_resnet):
        folder = kind(tmp_path / kind.__name__)
        whole = load_backbone(folder)
        change_state(folder, lambda s: s.update({k: v.half() for k, v in s.items() if v.is_floating_point()}))
        half = load_backbone(folder)
        assert half.dtype == torch.float32
        assert half.encode_image(pixels()).dtype == half.encode_text(["stone"]).dtype == torch.float32
        torch.testing.assert_close(half.encode_image(pixels()), whole.encode_image(pixels()), atol=0.02, rtol=0.02)
        assert half.fingerprint != whole.fingerprint


def test_other_precisions(vit: Path, tiny_clip_vit: Backbone) -> None:
    images, texts = load_backbone(vit, precision="bfloat16"), load_backbone(vit, dtype=torch.bfloat16)
    for ours, theirs in (
        (images.encode_image(pixels().to(torch.bfloat16)), tiny_clip_vit.encode_image(pixels())),
        (texts.encode_text(["a stone"]), tiny_clip_vit.encode_text(["a stone"])),
    ):
        assert ours.dtype == torch.bfloat16
        torch.testing.assert_close(ours.float(), theirs, atol=0.15, rtol=0.1)
    # each leaves the other tower alone
    torch.testing.assert_close(images.encode_text(["stone"]), tiny_clip_vit.encode_text(["stone"]), atol=0, rtol=0)
    torch.testing.assert_close(texts.encode_image(pixels()), tiny_clip_vit.encode_image(pixels()), atol=0, rtol=0)
    assert images.fingerprint == texts.fingerprint == tiny_clip_vit.fingerprint


def test_whatever_changes_a_feature_changes_the_fingerprint(vit: Path, tiny_clip_vit: Backbone) -> None:
    description = (vit / CONFIG).read_text()
    changes: list[Change] = [
        lambda c: c["model_cfg"].update(quick_gelu=False),
        lambda c: c["model_cfg"]["vision_cfg"].update(head_width=16),
        lambda c: c["model_cfg"]["text_cfg"].update(heads=2),
        lambda c: c["model_cfg"]["text_cfg"].update(context_length=32),
        lambda c: c["preprocess_cfg"].update(mean=[0.5, 0.5, 0.5]),
    ]
    seen = {tiny_clip_vit.fingerprint}
    for number, change in enumerate(changes, start=1):
        edit(vit / CONFIG, change)
        seen.add(load_backbone(vit).fingerprint)
        assert len(seen) == number + 1
        (vit / CONFIG).write_text(description)
    change_state(vit, lambda s: s["logit_scale"].add_(1e-3))
    assert load_backbone(vit).fingerprint not in seen


# -- what cannot be used


@pytest.mark.parametrize(
    ("part", "setting", "words"),
    [
        ("vision_cfg", {"layers": [1, 2, 1]}, "layers is [1, 2, 1], must be a whole number or a list of four"),
        ("vision_cfg", {"layers": [1, 2, 1, 0]}, "layers is 0, must be a whole number of at least 1"),
        ("vision_cfg", {"layers": None}, "layers is None, must be a whole number"),
        ("vision_cfg", {"layers": 3}, "lacks 'visual.transformer.resblocks.2."),
        ("vision_cfg", {"layers": 1}, "has unexpected 'visual.transformer.resblocks.1."),
        ("vision_cfg", {"layers": [1, 2, 1, 1]}, "lacks 'visual.layer1.0.conv1.weight'"),
        ("vision_cfg", {"head_width": 48}, "the image tower's width 64 is no multiple of head_width 48"),
        ("vision_cfg", {"image_size": 64}, "vision_cfg image_size 64 in open_clip_config.json, 32 in the weights"),
        ("vision_cfg", {"width": 768}, "vision_cfg width 768 in open_clip_config.json, 64 in the weights"),
        ("vision_cfg", {"patch_size": 16}, "vision_cfg patch_size 16 in open_clip_config.json, 8 in the weights"),
        ("vision_cfg", {"mlp_ratio": 4.0}, "vision_cfg mlp_ratio 4.0 in open_clip_config.json, 2 in the weights"),
        ("vision_cfg", {"mlp_ratio": "x"}, "vision_cfg mlp_ratio holds 'x'"),
        ("vision_cfg", {"pool_type": "avg"}, "pool_type 'avg' is not supported, only 'tok'"),
        ("vision_cfg", {"timm_model_name": "vit_base"}, "only a timm ViT or EfficientNet-Lite with a BERT"),
        ("text_cfg", {"hf_model_name": "bert-base"}, "only a timm ViT or EfficientNet-Lite with a BERT"),
        ("text_cfg", {"layers": 3}, "lacks 'transformer.resblocks.2."),
        ("text_cfg", {"heads": 3}, "the text tower's width 40 is no multiple of 3 heads"),
        ("text_cfg", {"heads": 0}, "heads is 0"),
        ("text_cfg", {"width": 512}, "text_cfg width 512 in open_clip_config.json, 40 in the weights"),
        ("text_cfg", {"vocab_size": 49408}, "text_cfg vocab_size 49408 in open_clip_config.json, 590 in the weights"),
        ("text_cfg", {"context_length": 78}, "context_length 78 exceeds the 77 positions"),
        ("text_cfg", {"mlp_ratio": 3}, "text_cfg mlp_ratio 3.0 in open_clip_config.json, 2 in the weights"),
        ("text_cfg", {"pool_type": "last"}, "pool_type 'last' is not supported, only 'argmax'"),
        ("text_cfg", {"no_causal_mask": True}, "no_causal_mask 'True' is not supported, only 'False'"),
        ("text_cfg", {"tokenizer_kwargs": {"clean": "canonicalize"}}, "tokenizer_kwargs"),
        ("model_cfg", {"embed_dim": 512}, "embed_dim 512 in open_clip_config.json, 48 in the weights"),
        ("model_cfg", {"quick_gelu": "yes"}, "quick_gelu is 'yes', must be true or false"),
        ("preprocess_cfg", {"resize_mode": "squash"}, "resize_mode 'squash' is not supported"),
        ("preprocess_cfg", {"std": [0.5, 0.5, 0]}, "std holds 0"),
    ],
)
def test_settings_that_cannot_be_used_are_named(vit: Path, part: str, setting: dict, words: str) -> None:
    def change(content: dict) -> None:
        model = content["model_cfg"]
        {**content, **model}[part].update(setting)

    edit(vit / CONFIG, change)
    assert words in refusal(vit)


def test_what_is_not_told_has_the_default_of_open_clip(vit: Path, tiny_clip_vit: Backbone) -> None:
    def change(content: dict) -> None:
        content.pop("preprocess_cfg")
        content["model_cfg"]["text_cfg"] = {"heads": 4, "layers": 2}
        content["model_cfg"]["vision_cfg"] = {"layers": 2, "head_width": 32}

    edit(vit / CONFIG, change)
    assert load_backbone(vit).fingerprint == tiny_clip_vit.fingerprint
    edit(vit / CONFIG, lambda c: c["model_cfg"]["vision_cfg"].pop("head_width"))
    edit(vit / CONFIG, lambda c: c["model_cfg"].pop("quick_gelu"))
    backbone = load_backbone(vit)  # heads of 64, and the exact GELU
    assert [tuple(one.shape) for one in backbone.attention_maps(pixels())[1]] == 2 * [(3, 1, 17, 17)]
    assert backbone.encode_text(["stone"]).sub(tiny_clip_vit.encode_text(["stone"])).abs().max() > 1e-3


@pytest.mark.parametrize(
    "part",
    ["visual.transformer.resblocks.1.", "transformer.resblocks.1.", "ln_final.bias", "visual.proj", "logit_scale"],
)
def test_missing_tensors_are_named(vit: Path, part: str) -> None:
    change_state(vit, lambda s: [s.pop(key) for key in [*s] if key.startswith(part)])
    assert f"lacks '{part}" in refusal(vit)


@pytest.mark.parametrize("part", ["layer2.1.", "bn2.running_var", "layer3.0.downsample.1.", "attnpool.c_proj.bias"])
def test_missing_tensors_of_the_resnet_are_named(tmp_path: Path, part: str) -> None:
    folder = write_resnet(tmp_path / "resnet")
    change_state(folder, lambda s: [s.pop(key) for key in [*s] if key.startswith(f"visual.{part}")])
    assert f"lacks 'visual.{part}" in refusal(folder)


def test_wrong_shapes_are_named(vit: Path, tmp_path: Path) -> None:
    told_by = {  # the tensors that sizes are read off, and one other
        vit: (
            *("visual.conv1.weight", "visual.positional_embedding", "visual.transformer.resblocks.0.mlp.c_fc.weight"),
            *("token_embedding.weight", "positional_embedding", "transformer.resblocks.0.mlp.c_fc.weight"),
            *("text_projection", "ln_final.weight"),
        ),
        write_resnet(tmp_path / "resnet"): ("visual.layer1.0.conv1.weight", "visual.attnpool.positional_embedding"),
    }
    for folder, keys in told_by.items():
        state = load_file(folder / WEIGHTS)
        for key in keys:
            for wrong in (torch.zeros(()), state[key][None].contiguous(), torch.zeros(0)):
                save_file({**state, key: wrong}, folder / WEIGHTS)
                message = refusal(folder)
                assert f"'{key}'" in message
                assert str(list(wrong.shape)) in message
    state = vit_state()
    for positions in (1, 2, 16, 18):
        save_file({**state, "visual.positional_embedding": torch.zeros(positions, 64)}, vit / WEIGHTS)
        assert "image_size" in (message := refusal(vit)) or "'visual.positional_embedding' has shape" in message


def test_values_that_cannot_be_used(vit: Path) -> None:
    state = vit_state()
    for key, value, words in (
        ("ln_final.weight", torch.full((TEXT_WIDTH,), math.nan), "'ln_final.weight' holds values that are not finite"),
        ("logit_scale", torch.tensor(100.0), "the exponential of 'logit_scale' is not finite"),
        ("ln_final.weight", torch.ones(TEXT_WIDTH, dtype=torch.int64), "'ln_final.weight' holds torch.int64 values"),
        ("logit_bias", torch.tensor(1.0), "has unexpected 'logit_bias'"),
        ("text.ln_final.weight", torch.ones(TEXT_WIDTH), "has unexpected 'text.ln_final.weight'"),
    ):
        save_file({**state, key: value}, vit / WEIGHTS)
        assert words in refusal(vit)


def test_tokenizers_that_cannot_be_used(vit: Path, parity: Path) -> None:
    ids, vocab = vocabulary()[0], vit / "vocab.json"
    (vit / "tokenizer.json").write_bytes((parity / "model" / "tokenizer.json").read_bytes())
    assert "only the tokenizer of a CLIP can be used" in refusal(vit)
    (vit / "tokenizer.json").unlink()
    vocab.write_text(json.dumps({**ids, "one": len(ids), "more": len(ids) + 1}))
    assert f"{END} is not the token of the highest number" in refusal(vit)
    vocab.write_text(json.dumps({**ids, "one": ids[START], START: len(ids), END: len(ids) + 1}))
    assert "the tokenizer knows 591 tokens, the weights 590" in refusal(vit)
    vocab.write_text("{oops")
    assert "the tokenizer files cannot be read" in refusal(vit)
    (vit / "merges.txt").unlink()
    assert "no tokenizer.json or vocab.json with merges.txt" in refusal(vit)


def test_each_kind_has_its_loader(vit: Path, parity: Path) -> None:
    with pytest.raises(UserError, match="it describes OpenAI's CLIP; load_backbone loads both kinds"):
        load_open_clip(vit)
    with pytest.raises(
        UserError, match="it describes an image tower of timm with a BERT; load_backbone loads both kinds"
    ):
        load_clip(parity / "model")
