"""SigLIP in transformers layout: equal to transformers, its text of fixed length, and what is refused."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import biomedcoop as bc
from backbones.folders import edit_json, refusal
from backbones.tiny_siglip import BASE, MEDSIGLIP, TINY, siglip_state, write_siglip
from biomedcoop.backbones import BACKBONES, load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.registry import check_model, check_place
from biomedcoop.backbones.siglip import SiglipBackbone
from biomedcoop.features.images import encode_images
from biomedcoop.features.spaces import image_space
from biomedcoop.features.stream import stream_features
from features.scans import dataset

LAYER = "text_model.encoder.layers.1"
TEXTS = ["a photo of a cyst.", "Normal X-ray", "", "a scan of the benign tumor, grade 2", "stone " * 90]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_siglip(tmp_path_factory.mktemp("siglip") / "tiny-siglip")


@pytest.fixture
def spoilt(folder: Path, tmp_path: Path) -> Path:
    """A copy of the folder, to be spoilt."""
    return Path(shutil.copytree(folder, tmp_path / "spoilt"))


@pytest.fixture(scope="module")
def ours(folder: Path) -> SiglipBackbone:
    loaded = load_backbone(folder)
    assert isinstance(loaded, SiglipBackbone)
    return loaded


def check_equal(ours: SiglipBackbone, config: Mapping[str, Any], count: int = 3, sentences: list[str] = TEXTS) -> None:
    """Features of ``count`` images and of texts, and their zero-shot probabilities, within 1e-4 of transformers."""
    from transformers import SiglipConfig, SiglipModel

    with torch.device("meta"):
        theirs = SiglipModel(SiglipConfig(**copy.deepcopy(config))).eval()
    theirs.load_state_dict(siglip_state(config), assign=True)  # every tensor has its place
    for part in (theirs.text_model.embeddings, theirs.vision_model.embeddings):
        part.position_ids = torch.arange(part.position_embedding.num_embeddings)[None]
    pixels = torch.randn(count, 3, ours.image_size, ours.image_size, generator=torch.Generator().manual_seed(1))
    padded = torch.full((len(sentences), ours.context_length), 1)  # transformers fills with </s>
    for row, text in zip(padded, sentences, strict=True):
        ids = ours.tokenizer.ids(text)
        row[: len(ids)] = torch.tensor(ids)
    with torch.inference_mode():
        expected = theirs(input_ids=padded, pixel_values=pixels)
        images, texts = ours.encode_image(pixels), ours.encode_text(sentences)
        logits = ours.logit_scale * torch.nn.functional.cosine_similarity(images[:, None], texts[None], dim=-1)
    for found, wanted in (
        (images, expected.vision_model_output.pooler_output),
        (texts, expected.text_model_output.pooler_output),
        (logits.softmax(1), expected.logits_per_image.softmax(1)),  # theirs adds the bias to each logit
    ):
        assert wanted.std() > 0.1 * wanted.abs().mean()
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(texts[0], texts[1], atol=0.01)


def test_equal_to_transformers(ours: SiglipBackbone) -> None:
    check_equal(ours, TINY)
    assert (ours.image_size, ours.context_length, ours.embed_dim, ours.token_dim) == (34, 64, 32, 48)
    assert (ours.mean, ours.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert ours.logit_scale == pytest.approx(109.95, abs=0.01)
    assert ours.name == "tiny-siglip"


@pytest.mark.slow
def test_full_size_is_equal_to_transformers() -> None:
    """google/siglip-base-patch16-224 with random weights, 0.8 GB."""
    with tempfile.TemporaryDirectory() as place:
        loaded = load_backbone(write_siglip(Path(place) / "base", BASE))
    assert isinstance(loaded, SiglipBackbone)
    assert sum(p.numel() for p in loaded.towers.parameters()) == 203_155_970
    assert (loaded.image_size, loaded.context_length, loaded.embed_dim) == (224, 64, 768)
    check_equal(loaded, BASE)


@pytest.mark.slow
def test_medsiglip_of_full_size_is_equal_to_transformers() -> None:
    """google/medsiglip-448 with random weights: 3.5 GB on disk, about 11 GB of memory, one image and two texts."""
    with tempfile.TemporaryDirectory() as place:
        folder = write_siglip(Path(place) / "medsiglip", MEDSIGLIP)
        loaded = load_backbone(folder)
        check_place("medsiglip", folder)
        check_model("medsiglip", folder, loaded)
    assert isinstance(loaded, SiglipBackbone)
    (source,) = BACKBONES["medsiglip"].sources
    assert source.repo == "google/medsiglip-448"
    megabytes = sum(4 * p.numel() for p in loaded.towers.parameters()) / 1e6
    assert megabytes == pytest.approx(BACKBONES["medsiglip"].megabytes, rel=0.001)
    assert (loaded.image_size, loaded.context_length, loaded.embed_dim) == (448, 64, 1152)
    check_equal(loaded, MEDSIGLIP, count=1, sentences=TEXTS[:2])


# -- text


def test_tokens(ours: SiglipBackbone) -> None:
    ids = ours.tokenize(["A photo, of a CYST!", "scan"])
    names = ours.tokenizer.rust.id_to_token
    assert [names(number) for number in ids[0].tolist()] == ["▁a", "▁photo", "▁of", "▁a", "▁cyst", "</s>"]
    assert [names(number) for number in ids[1].tolist()] == ["▁scan", "</s>", "<pad>", "<pad>", "<pad>", "<pad>"]
    assert ours.mask(ids).sum(1).tolist() == [6, 2]
    assert ours.token_counts(["stone " * 90, "."]) == [91, 1]
    assert ours.tokenize(["stone " * 90]).equal(ours.tokenize(["stone " * 63]))
    words = {entry.text: entry.whole for entry in ours.vocabulary()}
    assert words["cyst"] is True
    assert words["ray"] is False
    assert not {"<pad>", "</s>", "<unk>", "", "▁"} & words.keys()


def test_padding_of_the_call_changes_nothing(ours: SiglipBackbone) -> None:
    together = ours.encode_text(["a cyst", "a scan of the benign tumor"])[0]
    torch.testing.assert_close(together, ours.encode_text(["a cyst"])[0], atol=1e-6, rtol=0)


def test_tokenizer_json_is_read_first(ours: SiglipBackbone, spoilt: Path) -> None:
    ours.tokenizer.rust.save(str(spoilt / "tokenizer.json"))
    (spoilt / "spiece.model").unlink()
    again = load_backbone(spoilt)
    assert again.tokenize(TEXTS).equal(ours.tokenize(TEXTS))
    assert again.fingerprint == ours.fingerprint


def test_gradients_reach_the_embeddings(ours: SiglipBackbone) -> None:
    ids = ours.tokenize(["a cyst", "a scan of the benign tumor"])
    embeddings = ours.embed_tokens(ids).clone().requires_grad_()
    ours.encode_text_embeddings(embeddings, ours.mask(ids)).square().sum().backward()
    assert embeddings.grad is not None
    assert ((embeddings.grad != 0).any(-1) == ours.mask(ids)).all()


def test_attention_gives_the_same_features(ours: SiglipBackbone) -> None:
    pixels = torch.randn(2, 3, 34, 34, generator=torch.Generator().manual_seed(2))
    features, maps = ours.attention_maps(pixels)
    torch.testing.assert_close(features, ours.encode_image(pixels), atol=1e-5, rtol=1e-5)
    assert [tuple(attention.shape) for attention in maps] == [(2, 4, 16, 16), (2, 4, 16, 16), (2, 4, 1, 16)]


# -- images


def test_images_are_squashed(ours: SiglipBackbone, tmp_path: Path) -> None:
    """The features of files, and of images in memory, are those of the whole image at 34 x 34 px."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 180, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    whole = np.array(Image.fromarray(pixels).resize((34, 34), Image.Resampling.BICUBIC))
    with torch.inference_mode():
        expected = ours.encode_image(ours.normalize(whole[None]))[0].numpy()
    ((_, streamed),) = stream_features(ours, [tmp_path / "wide.png"])
    np.testing.assert_allclose(streamed, expected, atol=1e-5)
    (stored,) = encode_images(ours, dataset([tmp_path / "wide.png"]), store_root=tmp_path / "store")
    np.testing.assert_allclose(stored, expected, atol=1e-5)
    assert image_space(ours)["view"] == "whole: squashed bicubic, 1"


def test_maps_cover_the_whole_image_and_the_card_says_how_it_is_read(ours: SiglipBackbone, tmp_path: Path) -> None:
    data = bc.load_dataset("simulated:breast-ultrasound?train=2&val=0&test=1")
    classifier = bc.fit(data, "linear-probe", ours, shots=2, progress=False)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 180, 3), dtype=np.uint8)
    (found,) = bc.saliency(classifier, [pixels], map="grad-cam")
    assert np.isfinite(found.values).all()
    assert found.box == (0, 0, 180, 60)
    classifier.save(tmp_path / "model")
    assert "squashed to 34 × 34 px (bicubic)" in (tmp_path / "model" / "README.md").read_text()


# -- what is refused


def state_of(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    state = {key: value.clone() for key, value in load_file(folder / "model.safetensors").items()}
    change(state)
    save_file(state, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("config.json", lambda c: c["vision_config"].update(num_attention_heads=5), "no multiple of its 5 heads"),
        ("config.json", lambda c: c["vision_config"].update(hidden_act="gelu"), "hidden_act 'gelu' is not supported"),
        (
            "config.json",
            lambda c: c["text_config"].update(num_hidden_layers=2),
            "has unexpected 'text_model.encoder.layers.2.",
        ),
        (
            "config.json",
            lambda c: c["text_config"].update(hidden_size=64),
            "hidden_size 64 in config.json, 48 in the weights",
        ),
        ("config.json", lambda c: c["vision_config"].update(image_size=64), "image_size in config.json 64"),
        ("preprocessor_config.json", lambda c: c.update(resample=2), "resample '2' is not supported"),
        ("preprocessor_config.json", lambda c: c.update(do_center_crop=True), "do_center_crop 'True' is not supported"),
        (
            "tokenizer_config.json",
            lambda c: c.update(tokenizer_class="GemmaTokenizer"),
            "is a SigLIP 2, whose tokenizer (Gemma's) and preprocessing are not supported; take a SigLIP, such as hub:google",
        ),
        ("config.json", lambda c: c.update(model_type="siglip2"), "is a SigLIP 2, whose tokenizer (Gemma's)"),
        (
            "tokenizer_config.json",
            lambda c: c.update(tokenizer_class="LlamaTokenizer"),
            "tokenizer_class 'LlamaTokenizer' is not supported, only 'SiglipTokenizer'",
        ),
        (
            "tokenizer_config.json",
            lambda c: c.update(pad_token="<fill>"),
            "pad_token '<fill>' is not in the vocabulary",
        ),
    ],
)
def test_other_settings_are_refused(file: str, change: Callable[[dict], object], reason: str, spoilt: Path) -> None:
    edit_json(spoilt / file, change)
    assert reason in refusal(spoilt)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s.pop("logit_bias"), "lacks 'logit_bias'"),
        (
            lambda s: s.pop("vision_model.encoder.layers.1.self_attn.k_proj.weight"),
            "lacks 'vision_model.encoder.layers.1.self_attn.k_proj.weight'",
        ),
        (
            lambda s: s["vision_model.head.probe"].fill_(float("nan")),
            "'vision_model.head.probe' holds values that are not finite",
        ),
        (lambda s: s.update(more=torch.zeros(1)), "has unexpected 'more'"),
        (
            lambda s: s.update({f"{LAYER}.self_attn.v_proj.bias": torch.zeros(8)}),
            f"'{LAYER}.self_attn.v_proj.bias' is torch.float32 of shape [8], '{LAYER}.self_attn.q_proj.bias'",
        ),
        (
            lambda s: s[f"{LAYER}.self_attn.v_proj.bias"].fill_(float("inf")),
            f"'{LAYER}.self_attn.{{q,k,v}}_proj.bias' holds values that are not finite",
        ),
        (
            lambda s: s.update({f"{LAYER}.layer_norm1.weight": torch.zeros(8)}),
            f"'{LAYER}.layer_norm1.weight' has shape [8], expected [48]",
        ),
    ],
)
def test_other_tensors_are_refused(change: Callable[[dict], object], reason: str, spoilt: Path) -> None:
    state_of(spoilt, change)
    assert reason in refusal(spoilt)


@pytest.mark.parametrize(
    "file", ["model.safetensors", "preprocessor_config.json", "tokenizer_config.json", "spiece.model"]
)
def test_missing_files_are_named(file: str, spoilt: Path) -> None:
    (spoilt / file).unlink()
    assert file in refusal(spoilt)


@pytest.mark.parametrize("length", [0, 3, 40, -5])
def test_a_cut_sentencepiece_model_is_refused(length: int, spoilt: Path) -> None:
    content = (spoilt / "spiece.model").read_bytes()
    (spoilt / "spiece.model").write_bytes(content[:length])
    refusal(spoilt)


def test_whatever_changes_a_feature_changes_the_fingerprint(ours: Backbone, spoilt: Path) -> None:
    seen = {ours.fingerprint}
    edit_json(spoilt / "tokenizer_config.json", lambda c: c.update(do_lower_case=False))
    seen.add(load_backbone(spoilt).fingerprint)
    edit_json(spoilt / "tokenizer_config.json", lambda c: c.update(pad_token="<pad>"))
    seen.add(load_backbone(spoilt).fingerprint)
    edit_json(spoilt / "config.json", lambda c: c["text_config"].update(layer_norm_eps=1e-5))
    seen.add(load_backbone(spoilt).fingerprint)
    assert len(seen) == 4
