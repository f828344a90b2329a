"""The open_clip directory loader: the published numbers, a look inside the image tower, and one fingerprint per model.

The features are held to 1e-5, five times what an independent implementation shows (parity_a/README.md).
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

from backbones.folders import WEIGHTS, edit_json, use_bin
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.data.images.crops import resize_and_crop
from biomedcoop.data.images.reading import read_image
from biomedcoop.errors import UserError

NORM = "visual.trunk.norm.weight"

State = dict[str, torch.Tensor]


# -- the published numbers


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_image_features(part: str, tiny: Backbone, parity: Path, images: dict[str, np.ndarray]) -> None:
    gold = np.load(parity / "encoders.npz")[f"{part}_image_features_raw"]
    with torch.no_grad():
        np.testing.assert_allclose(
            tiny.encode_image(torch.from_numpy(images[f"{part}_images"])), gold, atol=1e-5, rtol=0
        )


def test_token_ids_and_text_features(tiny: Backbone, parity: Path) -> None:
    gold = np.load(parity / "encoders.npz")
    names = json.loads((parity / "classes.json").read_text())
    sentences = json.loads((parity / "prompts.json").read_text())
    texts = {"template": [f"a photo of a {name}." for name in names]}
    texts["prompt"] = [sentence for name in names for sentence in sentences[name]]
    for kind, lines in texts.items():
        padded = gold[f"{kind}_token_ids"].reshape(len(lines), -1)
        ids = tiny.tokenize(lines)
        np.testing.assert_array_equal(ids, padded[:, : ids.shape[1]])
        assert not padded[:, ids.shape[1] :].any()  # nothing of the published ids is cut off
        assert (ids[:, -1] != 0).any()  # and nothing is padded beyond the longest text
        with torch.no_grad():
            features = tiny.encode_text(lines)
        np.testing.assert_allclose(
            features, gold[f"{kind}_text_features_raw"].reshape(features.shape), atol=1e-5, rtol=0
        )
    assert math.log(tiny.logit_scale) == pytest.approx(float(gold["logit_scale"]), abs=1e-6)


def test_pixels(tiny: Backbone, parity: Path) -> None:
    gold = np.load(parity / "preprocess_check.npz")
    image = read_image(parity / "preprocess_source.png")
    small, large = (tiny.normalize(resize_and_crop(image, size)[None])[0] for size in (32, 224))
    np.testing.assert_allclose(small, gold["tensor32"], atol=1e-6, rtol=0)
    np.testing.assert_allclose(large[:, 112], gold["tensor224_row112"], atol=1e-6, rtol=0)
    spread = torch.stack([large.mean((1, 2)), large.std((1, 2))], dim=1)
    np.testing.assert_allclose(spread, gold["tensor224_mean_std"], atol=1e-5, rtol=0)


def test_padding_to_the_context_length_changes_nothing(tiny: Backbone) -> None:
    texts = ["cyst.", "a scan with a bright, round, well defined mass beside the left kidney."]
    ids = tiny.tokenize(texts)
    padded = torch.zeros(len(texts), tiny.context_length, dtype=torch.int64)
    padded[:, : ids.shape[1]] = ids
    with torch.no_grad():
        full = tiny.encode_text_embeddings(tiny.embed_tokens(padded), padded != 0)
        alone = torch.cat([tiny.encode_text([text]) for text in texts])
        together = tiny.encode_text(texts)
    np.testing.assert_allclose(together, full, atol=1e-5, rtol=0)
    np.testing.assert_allclose(together, alone, atol=1e-5, rtol=0)


def test_long_texts_are_cut_to_the_context_length(tiny: Backbone) -> None:
    ids = tiny.tokenize(["mass " * 200, "mass"])
    assert ids.shape == (2, tiny.context_length)
    separator = tiny.tokenize(["mass"])[0, -1]
    assert ids[0, -1] == separator  # the end of the text survives the cut


def test_text_features_follow_the_embeddings(tiny: Backbone) -> None:
    """The gradient, which is all that prompt learning needs, agrees with a finite difference."""
    ids = tiny.tokenize(["a photo of a cyst."])
    embedded = tiny.embed_tokens(ids).requires_grad_()
    direction = torch.randn(embedded.shape, generator=torch.Generator().manual_seed(0))
    tiny.encode_text_embeddings(embedded, ids != 0).sum().backward()
    step = 3e-4  # word embeddings are about 0.02 wide
    with torch.no_grad():
        ahead, behind = (tiny.encode_text_embeddings(embedded + h * direction, ids != 0).sum() for h in (step, -step))
    assert embedded.grad is not None
    assert float((embedded.grad * direction).sum()) == pytest.approx(float(ahead - behind) / (2 * step), rel=0.02)


# -- inside the image tower


def test_activations_and_their_gradients(tiny: Backbone, images: dict[str, np.ndarray]) -> None:
    pixels = torch.from_numpy(images["test_images"][:3])
    with torch.no_grad():
        plain = tiny.encode_image(pixels)
    features, tokens = tiny.image_activations(pixels, "norm")
    torch.testing.assert_close(features.detach(), plain, atol=1e-6, rtol=0)
    direction = torch.arange(tiny.embed_dim, dtype=torch.float32)
    (gradient,) = torch.autograd.grad((features @ direction).sum(), tokens)
    # behind the last norm only the CLS token counts, and linearly
    head = load_file(Path(__file__).parent.parent / "parity_a" / "model" / WEIGHTS)["visual.head.proj.weight"]
    torch.testing.assert_close(gradient[:, 0], (head.T @ direction).expand(3, -1))
    assert not gradient[:, 1:].any()
    for layer in ("patch_embed", "blocks.0", "blocks.1.norm1", "blocks.1.attn"):
        features, activations = tiny.image_activations(pixels, layer)
        (gradient,) = torch.autograd.grad(features.sum(), activations)
        assert gradient.shape == activations.shape
        assert gradient.abs().max() > 0
    assert not tiny.encode_image(pixels).requires_grad  # nothing stays hooked


def test_activations_work_where_gradients_are_off(tiny: Backbone, images: dict[str, np.ndarray]) -> None:
    with torch.no_grad():
        features, activations = tiny.image_activations(torch.from_numpy(images["test_images"][:1]), "blocks.1.norm1")
    assert torch.autograd.grad(features.sum(), activations)[0].abs().max() > 0


def test_unknown_layers_are_refused(tiny: Backbone, images: dict[str, np.ndarray]) -> None:
    pixels = torch.from_numpy(images["test_images"][:1])
    for layer in ("blocks.2.norm1", "blocks", "", "head"):
        with pytest.raises(UserError, match=rf"no image layer '{layer}'; a layer is, for instance, 'blocks\.1\.norm1'"):
            tiny.image_activations(pixels, layer)


def test_attention_maps(tiny: Backbone, images: dict[str, np.ndarray]) -> None:
    pixels = torch.from_numpy(images["test_images"][:3])
    features, found = tiny.attention_maps(pixels)
    torch.testing.assert_close(features, tiny.encode_image(pixels), atol=1e-5, rtol=0)
    assert all(attention.abs().max() > 0 for attention in torch.autograd.grad(features.sum(), found))
    maps = torch.stack(found, dim=1).detach()
    assert maps.shape == (3, 2, 3, 17, 17)
    assert float(maps.min()) >= 0
    torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:-1]))
    # they are the weights that the tower itself uses: what leaves a block's attention is its values, so weighted
    trunk = tiny.towers.visual.trunk  # type: ignore[attr-defined]
    with torch.no_grad():
        x = trunk.embed(pixels)
        for index, block in enumerate(trunk.blocks):
            normed = block.norm1(x)
            values = block.attn.split_heads(normed)[2]
            mixed = block.attn.proj((maps[:, index] @ values).transpose(1, 2).flatten(2))
            torch.testing.assert_close(mixed, block.attn(normed))
            x = block(x)


# -- one fingerprint per model


@pytest.mark.parametrize("how", ["plain", "before torch 1.6", "state_dict", "position_ids"])
def test_a_bin_and_its_safetensors_twin_agree(how: str, folder: Path, state: State, tiny: Backbone) -> None:
    if how == "state_dict":
        content: dict = {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}
    elif how == "position_ids":
        content = {**state, "text.transformer.embeddings.position_ids": torch.arange(256)[None]}
    else:
        content = dict(state)
    use_bin(folder, content, _use_new_zipfile_serialization=how != "before torch 1.6")
    backbone = load_backbone(folder)
    assert backbone.fingerprint == tiny.fingerprint
    pixels = torch.ones(1, 3, 32, 32)
    torch.testing.assert_close(backbone.encode_image(pixels), tiny.encode_image(pixels), atol=0, rtol=0)


def test_position_ids_in_safetensors_are_tolerated(folder: Path, state: State, tiny: Backbone) -> None:
    save_file({**state, "text.transformer.embeddings.position_ids": torch.arange(256)[None]}, folder / WEIGHTS)
    assert load_backbone(folder).fingerprint == tiny.fingerprint


def test_whatever_changes_a_feature_changes_the_fingerprint(folder: Path, state: State, tiny: Backbone) -> None:
    config, bert = folder / "open_clip_config.json", folder / "config.json"
    model, description = config.read_text(), bert.read_text()
    kwargs = ["model_cfg", "vision_cfg", "timm_model_kwargs"]

    def inner(content: dict, keys: list[str]) -> dict:
        for key in keys:
            content = content[key]
        return content

    def one_weight() -> None:
        save_file({**state, NORM: torch.nextafter(state[NORM], torch.tensor(9.0))}, folder / WEIGHTS)

    def precision() -> None:
        save_file({key: value.half() for key, value in state.items()}, folder / WEIGHTS)

    def a_word() -> None:
        content = json.loads((folder / "tokenizer.json").read_text())
        vocabulary = content["model"]["vocab"]
        vocabulary["unheardof"] = vocabulary.pop(max(vocabulary, key=vocabulary.get))
        (folder / "tokenizer.json").write_text(json.dumps(content))

    changes: list[Callable[[], object]] = [
        lambda: edit_json(config, lambda c: c["preprocess_cfg"].update(mean=[0.5, 0.4578275, 0.40821073])),
        lambda: edit_json(config, lambda c: c["preprocess_cfg"].update(std=[0.5, 0.26130258, 0.27577711])),
        lambda: edit_json(config, lambda c: c["model_cfg"]["text_cfg"].update(context_length=32)),
        lambda: edit_json(config, lambda c: inner(c, kwargs).update(num_heads=6)),
        lambda: edit_json(bert, lambda c: c.update(num_attention_heads=2)),
        lambda: edit_json(bert, lambda c: c.update(layer_norm_eps=1e-5)),
        one_weight,
        precision,
        a_word,
    ]
    seen = {tiny.fingerprint}
    for number, change in enumerate(changes, start=1):
        change()
        seen.add(load_backbone(folder).fingerprint)
        assert len(seen) == number + 1
        config.write_text(model)
        bert.write_text(description)
    assert all(len(digest) == 32 and int(digest, 16) for digest in seen)


def test_name_and_place_do_not_change_the_fingerprint(folder: Path, tiny: Backbone) -> None:
    moved = folder.rename(folder.with_name("elsewhere"))
    backbone = load_backbone(moved)
    assert backbone.fingerprint == tiny.fingerprint
    assert (backbone.name, tiny.name) == ("elsewhere", "model")


def test_a_text_tower_in_another_precision(folder: Path, tiny: Backbone, images: dict[str, np.ndarray]) -> None:
    pixels = torch.from_numpy(images["test_images"][:2])
    half = load_backbone(folder, dtype=torch.bfloat16)
    features = half.encode_text(["a cyst."])
    assert features.dtype == torch.bfloat16
    torch.testing.assert_close(features.float(), tiny.encode_text(["a cyst."]), atol=0.1, rtol=0.1)
    torch.testing.assert_close(half.encode_image(pixels), tiny.encode_image(pixels), atol=0, rtol=0)
    # the weights are the same; the feature store knows the precision by itself
    assert half.fingerprint == tiny.fingerprint
