"""Models of open_clip by name, with a stand-in for the package, which needs a torchvision and so cannot be imported everywhere.

The stand-in has the functions, names and shapes of open_clip_torch 3.3.0 that the export uses.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from backbones.tiny_clip import END, START, TEXTS, VIT, config, pixels, vit_state, vocabulary, write_vit
from biomedcoop.backbones import download, load_backbone, locate
from biomedcoop.backbones.registry import check_backbone, weights_root
from biomedcoop.errors import UserError

NAME = "open_clip:tiny-ViT/ours"


class QuickGELU(nn.Module):
    """open_clip's activation, by whose name the export tells which one a model has."""


class Model(nn.Module):
    """A model whose tensors have open_clip's names."""

    def __init__(self) -> None:
        super().__init__()
        self.activation = QuickGELU()

    def state_dict(self, *_: Any, **__: Any) -> dict[str, torch.Tensor]:  # type: ignore[override]
        return vit_state()


class Package(ModuleType):
    """The stand-in; ``calls`` counts how often weights were fetched."""

    def __init__(self) -> None:
        super().__init__("open_clip")
        self.calls = 0

    def get_model_config(self, name: str) -> dict[str, Any] | None:
        cfg = config(VIT)["model_cfg"]
        del cfg["quick_gelu"]  # not in the model's configuration: the tag of the weights decides
        siglip = {
            "vision_cfg": {"timm_model_name": "vit_base_patch16_siglip_224"},
            "text_cfg": {"no_causal_mask": True},
        }
        return {"tiny-ViT": cfg, "tiny-SigLIP": siglip}.get(name)

    def list_pretrained_tags_by_model(self, name: str) -> list[str]:
        return ["ours", "gone"]

    def create_model(self, name: str, pretrained: str, weights_only: bool) -> nn.Module:
        self.calls += 1
        if pretrained == "gone":
            raise RuntimeError("Failed to download weights for tag 'gone': no connection")
        return Model()

    def get_tokenizer(self, name: str) -> Any:
        ids, merges = vocabulary()
        names = {START: "<start_of_text>", END: "<end_of_text>"}
        encoder = {names.get(token, token): number for token, number in ids.items()}
        return SimpleNamespace(
            encoder=encoder,
            decoder={number: token for token, number in encoder.items()},
            bpe_ranks={pair: rank for rank, pair in enumerate(merges)},
            sot_token_id=ids[START],
            eot_token_id=ids[END],
        )

    def get_model_preprocess_cfg(self, model: nn.Module) -> dict[str, Any]:
        return {
            "size": 32,
            "mode": "RGB",
            "mean": (0.48145466, 0.4578275, 0.40821073),
            "std": (0.26862954, 0.26130258, 0.27577711),
            "interpolation": "bicubic",
            "resize_mode": "shortest",
            "fill_color": 0,
        }


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIOMEDCOOP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Package:
    found = Package()
    monkeypatch.setitem(sys.modules, "open_clip", found)
    return found


def refusal(name: str) -> str:
    with pytest.raises(UserError) as caught:
        download(name)
    assert "\n" not in str(caught.value)
    assert not list(weights_root().rglob("*.safetensors"))
    return str(caught.value)


def test_an_exported_model_is_the_same_model(package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locate(NAME) is None
    with pytest.raises(UserError, match=f"run 'biomedcoop backbones download {NAME}'"):
        load_backbone(NAME)
    folder = download(NAME)
    assert download(NAME) == folder == locate(NAME)
    assert package.calls == 1
    monkeypatch.setitem(sys.modules, "open_clip", None)  # from here on the package is not needed
    ours, same = load_backbone(NAME), load_backbone(write_vit(tmp_path / "vit"))
    assert ours.name == NAME
    assert ours.tokenize(TEXTS).equal(same.tokenize(TEXTS))
    with torch.inference_mode():
        torch.testing.assert_close(ours.encode_image(pixels()), same.encode_image(pixels()), atol=0, rtol=0)
        torch.testing.assert_close(ours.encode_text(TEXTS), same.encode_text(TEXTS), atol=0, rtol=0)


def test_what_open_clip_cannot_give(package: Package) -> None:
    assert "open_clip has no model 'ViT-Z'" in refusal("open_clip:ViT-Z/ours")
    assert "no weights 'theirs' of tiny-ViT; it has ours, gone" in refusal("open_clip:tiny-ViT/theirs")
    assert "(Failed to download weights for tag 'gone': no connection)" in refusal("open_clip:tiny-ViT/gone")
    calls = package.calls
    assert "can be loaded this way" in refusal("open_clip:tiny-SigLIP/ours")
    assert package.calls == calls  # refused before anything is fetched


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    line = refusal(NAME)
    assert "pip install 'biomedcoop[open-clip]'" in line
    for use in (load_backbone, partial(download, offline=True)):
        with pytest.raises(UserError) as caught:
            use(NAME)
        assert str(caught.value) == line, "what is missing comes first"


@pytest.mark.parametrize(
    "name",
    ["open_clip:", "open_clip:ViT-B-32", "open_clip:/x", "open_clip:a/b/c", "open_clip:../x", "open_clip:hf-hub:a/b"],
)
def test_names_of_another_form(name: str) -> None:
    for use in (check_backbone, load_backbone, download):
        with pytest.raises(UserError, match="write it as open_clip:ViT-B-32/laion2b_s34b_b79k"):
            use(name)
