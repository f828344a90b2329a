"""PMC-CLIP from its authors' three files: the numbers of a second forward pass, the names it accepts, and what is refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from backbones.folders import edit_json, refusal
from backbones.tiny_clip import normal, resnet
from backbones.tiny_pmc_clip import (
    EMBED,
    FULL,
    IMAGE,
    PROJECTION,
    TEXT,
    TEXTS,
    TINY,
    bert_features,
    image_state,
    projection,
    text_state,
    write_full_pmc_clip,
    write_pmc_clip,
)
from biomedcoop.backbones import BACKBONES, load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.registry import check_model, check_place
from biomedcoop.errors import UserError

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pmc_clip(tmp_path_factory.mktemp("tiny") / "pmc-clip")


@pytest.fixture(scope="module")
def backbone(model: Path) -> Backbone:
    return load_backbone(model)


@pytest.fixture
def folder(model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model's folder, to be spoilt."""
    return Path(shutil.copytree(model, tmp_path / "pmc-clip"))


def pixels(size: int = 64) -> torch.Tensor:
    """Three images of noise."""
    return normal(7)(3, 3, size, size, std=1.0)


def padded(ids: torch.Tensor) -> torch.Tensor:
    """As the published code pads: 77 tokens, whatever the text."""
    return torch.nn.functional.pad(ids, (0, 77 - ids.shape[1]))


def change(path: Path, edit: Callable[[State], State | None]) -> None:
    """Rewrite a file of tensors by name with what ``edit`` returns, or has changed in place."""
    state = torch.load(path)
    torch.save(edit(state) or state, path)


# -- what it computes


def test_image_features_are_those_of_a_second_forward_pass(backbone: Backbone) -> None:
    state = {f"visual.{key}": value for key, value in image_state().items()}
    with torch.no_grad():
        expected = resnet(state, pixels(), heads=8)
        torch.testing.assert_close(backbone.encode_image(pixels()), expected, atol=1e-5, rtol=0)
    assert expected.std(0).mean() > 0.1


def test_text_features_are_those_of_a_second_forward_pass(backbone: Backbone) -> None:
    """Padded to the longest text of the call here, to 77 tokens there."""
    expected = bert_features(text_state(TINY), projection(), TINY, padded(backbone.tokenize(TEXTS)))
    with torch.no_grad():
        torch.testing.assert_close(backbone.encode_text(TEXTS), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(backbone.encode_text(TEXTS[:1]), expected[:1], atol=1e-5, rtol=0)
    assert expected.std(0).mean() > 0.1


def test_facts(backbone: Backbone) -> None:
    assert (backbone.name, backbone.tower_kind, backbone.map_layer) == ("pmc-clip", "resnet", "layer4")
    assert (backbone.image_size, backbone.embed_dim, backbone.token_dim) == (64, EMBED, 40)
    assert backbone.context_length == backbone.tokenize(["cyst " * 100]).shape[1] == 77
    assert backbone.logit_scale == pytest.approx(83.86, abs=0.01)
    assert backbone.mean == (0.48145466, 0.4578275, 0.40821073)


def test_normalisation_uses_the_running_statistics_whatever_the_mode(folder: Path) -> None:
    backbone = load_backbone(folder)
    expected = backbone.encode_image(pixels())
    backbone.towers.train()
    torch.testing.assert_close(backbone.encode_image(pixels()), expected, atol=0, rtol=0)
    torch.testing.assert_close(backbone.encode_image(pixels()[:1]), expected[:1], atol=1e-4, rtol=0)


def test_gradients_reach_every_real_token_and_no_padding(backbone: Backbone) -> None:
    ids = backbone.tokenize(["a photo of a cyst.", "a scan"])
    embedded = backbone.embed_tokens(ids).requires_grad_()
    backbone.encode_text_embeddings(embedded, backbone.mask(ids)).sum().backward()
    assert embedded.grad is not None
    assert (embedded.grad.abs().amax(2) > 0).equal(ids != 0)


def test_dropout_reaches_every_place_where_a_bert_has_it(backbone: Backbone) -> None:
    calls: list[torch.Size] = []

    def drop(x: torch.Tensor) -> torch.Tensor:
        calls.append(x.shape)
        return x

    ids = backbone.tokenize(["a cyst."])
    with torch.no_grad():
        found = backbone.encode_text_embeddings(backbone.embed_tokens(ids), ids != 0, drop)
        torch.testing.assert_close(found, backbone.encode_text(["a cyst."]), atol=1e-5, rtol=0)
    assert len(calls) == 1 + 3 * TINY["num_hidden_layers"]


def test_a_look_inside(backbone: Backbone) -> None:
    features, kept = backbone.image_activations(pixels(), "layer4")
    assert kept.shape == (3, 128, 2, 2)
    features.sum().backward()
    assert kept.grad is not None
    assert kept.grad.abs().sum() > 0
    with pytest.raises(UserError, match=r"no image layer 'blocks\.1'; a layer is, for instance, 'layer4'"):
        backbone.image_activations(pixels(), "blocks.1")
    with pytest.raises(UserError, match="ResNet, which has no attention maps; use a backbone with a ViT"):
        backbone.attention_maps(pixels())


def test_the_image_tower_computes_in_float32_alone(model: Path) -> None:
    for precision in ("bfloat16", "int8"):
        with pytest.raises(UserError, match=f"pmc-clip: precision {precision} is not known to keep .*; choose float32"):
            load_backbone(model, precision=precision)
    assert load_backbone(model, precision="auto").precision == "float32"


def test_a_text_tower_in_bfloat16(model: Path, backbone: Backbone) -> None:
    coarse = load_backbone(model, dtype=torch.bfloat16)
    assert coarse.encode_text(TEXTS).dtype == torch.bfloat16
    assert torch.cosine_similarity(coarse.encode_text(TEXTS).float(), backbone.encode_text(TEXTS)).min() > 0.99
    assert coarse.logit_scale == backbone.logit_scale


# -- one model, however its files were written


def prefixed(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + key: value for key, value in state.items()}


WAYS: dict[str, Callable[[Path], object]] = {
    "module": lambda f: [change(f / name, prefixed("module.")) for name in (IMAGE, TEXT)],
    "visual and bert": lambda f: [change(f / IMAGE, prefixed("visual.")), change(f / TEXT, prefixed("bert."))],
    "position_ids": lambda f: change(f / TEXT, lambda s: s | {"embeddings.position_ids": torch.arange(80)[None]}),
    "no counters": lambda f: change(f / IMAGE, lambda s: {k: v for k, v in s.items() if "num_batches" not in k}),
    "a parameter": lambda f: torch.save(torch.nn.Parameter(projection()), f / PROJECTION),
    "bare pickles": lambda f: torch.save(text_state(TINY), f / TEXT, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_same_tensors_have_the_same_fingerprint(way: str, folder: Path, backbone: Backbone) -> None:
    WAYS[way](folder)
    other = load_backbone(folder)
    assert other.fingerprint == backbone.fingerprint
    torch.testing.assert_close(other.encode_text(TEXTS), backbone.encode_text(TEXTS), atol=0, rtol=0)


def test_safetensors_are_read_first(folder: Path, backbone: Backbone) -> None:
    for name, tensors in ((IMAGE, image_state()), (TEXT, text_state(TINY)), (PROJECTION, projection())):
        path = folder / name
        path.write_bytes(b"")
        save_file(tensors if isinstance(tensors, dict) else {path.stem: tensors}, path.with_suffix(".safetensors"))
    assert load_backbone(folder).fingerprint == backbone.fingerprint


def test_every_other_tensor_changes_the_fingerprint(folder: Path, backbone: Backbone) -> None:
    torch.save(projection() + 1e-3, folder / PROJECTION)
    assert load_backbone(folder).fingerprint != backbone.fingerprint


# -- what is refused


@pytest.mark.parametrize("name", [IMAGE, TEXT, PROJECTION, "config.json", "vocab.txt"])
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    assert name in refusal(folder)


def test_files_in_each_others_place(folder: Path) -> None:
    torch.save(text_state(TINY), folder / IMAGE)
    torch.save(image_state(), folder / TEXT)
    assert f"{IMAGE}: holds the tensors of text_encoder; exchange the files" in refusal(folder)
    torch.save(image_state(), folder / IMAGE)
    assert f"{TEXT}: holds the tensors of image_encoder(resnet50); exchange the files" in refusal(folder)
    torch.save(projection(), folder / TEXT)
    assert f"{TEXT}: the checkpoint lacks 'embeddings.word_embeddings.weight'" in refusal(folder)
    torch.save(text_state(TINY), folder / TEXT)
    torch.save(image_state(), folder / PROJECTION)
    assert f"{PROJECTION}: the checkpoint lacks 'text_projection_layer'" in refusal(folder)


SPOILT: dict[str, tuple[str, Callable[[State], object], str]] = {
    "lacks": (IMAGE, lambda s: s.pop("bn1.running_mean"), "lacks 'bn1.running_mean'"),
    "pooling": (IMAGE, lambda s: s.pop("attnpool.positional_embedding"), "lacks 'attnpool.positional_embedding'"),
    "last block": (IMAGE, lambda s: [s.pop(k) for k in [*s] if "layer4.2." in k], "lacks 'layer4.2."),
    "extra": (IMAGE, lambda s: s.update(fc=torch.ones(2)), "unexpected 'fc'"),
    "heads of words": (TEXT, lambda s: s.update({"cls.bias": torch.ones(2)}), "unexpected 'cls.bias'"),
    "no pooler": (TEXT, lambda s: s.pop("pooler.dense.weight"), "lacks 'pooler.dense.weight'"),
    "one prefix": (TEXT, lambda s: s.update({"bert.x": torch.ones(2)}), "unexpected 'bert.x'"),
    "infinite": (TEXT, lambda s: s["pooler.dense.bias"].fill_(float("inf")), "'pooler.dense.bias' holds values"),
    "short": (
        TEXT,
        lambda s: s.update({"embeddings.position_embeddings.weight": torch.ones(64, 40)}),
        "64 positions; texts of PMC-CLIP have up to 77",
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_tensors_that_do_not_fit_are_named(case: str, folder: Path) -> None:
    name, edit, words = SPOILT[case]

    def spoil(state: State) -> None:
        edit(state)

    change(folder / name, spoil)
    assert words in refusal(folder)
    assert name in refusal(folder)


@pytest.mark.parametrize("shape", [(40, 40), (48, 48), (48, 40), (48,), (1, 40, 48)])
def test_a_projection_of_other_width(shape: tuple[int, ...], folder: Path) -> None:
    torch.save(torch.ones(shape), folder / PROJECTION)
    assert f"{PROJECTION}: 'text_projection_layer' has shape {[*shape]}, expected [40, 48]" in refusal(folder)


def test_a_description_that_does_not_fit(folder: Path) -> None:
    edit_json(folder / "config.json", lambda c: c.update(num_hidden_layers=3))
    assert "lacks 'encoder.layer.2." in refusal(folder)
    edit_json(folder / "config.json", lambda c: c.update(num_hidden_layers=2, num_attention_heads=7))
    assert "width 40 is no multiple of 7 heads" in refusal(folder)
    edit_json(folder / "config.json", lambda c: c.update(hidden_act="relu"))
    assert "hidden_act 'relu' is not supported" in refusal(folder)


class Malicious:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("name", [IMAGE, TEXT, PROJECTION])
def test_code_in_a_file_is_refused_and_never_executed(name: str, folder: Path, tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    torch.save({"conv1.weight": Malicious(trace)}, folder / name)
    assert f"{name}: refused, it holds more than tensors" in refusal(folder)
    assert not trace.exists()


# -- its download


def test_the_catalogue_names_every_file(tmp_path: Path) -> None:
    entry = BACKBONES["pmc-clip"]
    assert [source.kind for source in entry.sources] == ["dataset", "model"]
    assert {path.name for path in write_pmc_clip(tmp_path / "pmc-clip").iterdir()} == set(entry.files)


# -- the published size


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Layout, names and shapes as published, 591 MB; gone afterwards."""
    folder = write_full_pmc_clip(tmp_path_factory.mktemp("full") / "pmc-clip")
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
def test_full_size_features_are_those_of_a_second_forward_pass(full: Path) -> None:
    backbone = load_backbone(full)
    assert (backbone.image_size, backbone.embed_dim, backbone.token_dim) == (224, 768, 768)
    check_place("pmc-clip", full)
    check_model("pmc-clip", full, backbone)
    parameters = [sum(p.numel() for p in part.parameters()) for part in backbone.towers.children()]
    assert parameters == [37_792_352, 109_482_240]
    megabytes = sum(path.stat().st_size for path in full.iterdir()) / 1e6
    assert megabytes == pytest.approx(BACKBONES["pmc-clip"].megabytes, rel=0.01)
    ids = padded(backbone.tokenize(TEXTS))
    with torch.no_grad():
        state = {f"visual.{key}": value for key, value in torch.load(full / IMAGE, mmap=True).items()}
        images = resnet(state, pixels(224), heads=8)
        texts = bert_features(torch.load(full / TEXT, mmap=True), torch.load(full / PROJECTION), FULL, ids)
        for found, expected in ((backbone.encode_image(pixels(224)), images), (backbone.encode_text(TEXTS), texts)):
            print(f"largest difference {(found - expected).abs().max():.1e}, spread {expected.std(0).mean():.2f}")
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
            assert expected.std(0).mean() > 0.1
