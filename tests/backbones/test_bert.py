"""The text tower pooled by the mean of its tokens: open_clip's numbers, no padding in the mean, and a way for learned vectors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from backbones.folders import edit_json, refusal
from backbones.tiny_lite import GOLDEN, PARITY, TEXTS, write_lite
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone


def test_mean_pooled_features_are_those_of_open_clip(tiny_lite: Backbone) -> None:
    expected = json.loads(GOLDEN.read_text())["text"]
    with torch.no_grad():
        np.testing.assert_allclose(tiny_lite.encode_text(TEXTS), expected, atol=1e-5, rtol=0)
        for text, one in zip(TEXTS, expected, strict=True):
            np.testing.assert_allclose(tiny_lite.encode_text([text])[0], one, atol=1e-5, rtol=0)


def test_padding_is_not_in_the_mean(tiny_lite: Backbone) -> None:
    ids = tiny_lite.tokenize(TEXTS)
    padded = torch.zeros(len(TEXTS), tiny_lite.context_length, dtype=torch.int64)
    padded[:, : ids.shape[1]] = ids
    mask = padded != 0
    noise = torch.where(mask, padded, 7)
    with torch.no_grad():
        expected = tiny_lite.encode_text(TEXTS)
        for other in (padded, noise):
            found = tiny_lite.encode_text_embeddings(tiny_lite.embed_tokens(other), mask)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_vectors_in_front_of_the_name_are_learned_through_the_mean(tiny_lite: Backbone) -> None:
    """The gradient agrees with a finite difference, and reaches every real token and no padding."""
    ids = tiny_lite.tokenize(["a photo of a cyst.", "a stone"])
    mask = ids != 0
    embedded = tiny_lite.embed_tokens(ids).requires_grad_()
    direction = torch.randn(embedded.shape, generator=torch.Generator().manual_seed(0))
    tiny_lite.encode_text_embeddings(embedded, mask).sum().backward()  # type: ignore[no-untyped-call]
    step = 3e-4
    with torch.no_grad():
        ahead, behind = (tiny_lite.encode_text_embeddings(embedded + h * direction, mask).sum() for h in (step, -step))
    assert embedded.grad is not None
    assert float((embedded.grad * direction).sum()) == pytest.approx(float(ahead - behind) / (2 * step), rel=0.02)
    assert (embedded.grad.abs().amax(2) > 0).equal(mask)


def test_dropout_reaches_every_token(tiny_lite: Backbone) -> None:
    ids = tiny_lite.tokenize(["a cyst."])
    calls: list[torch.Size] = []

    def drop(x: torch.Tensor) -> torch.Tensor:
        calls.append(x.shape)
        return x

    with torch.no_grad():
        found = tiny_lite.encode_text_embeddings(tiny_lite.embed_tokens(ids), ids != 0, drop)
        torch.testing.assert_close(found, tiny_lite.encode_text(["a cyst."]), atol=1e-5, rtol=0)
    assert len(calls) == 1 + 3 * 2  # embeddings; attention, its output and the MLP of two layers


def test_the_pooler_alone_makes_another_model(tmp_path: Path, tiny_lite: Backbone) -> None:
    folder = write_lite(tmp_path / "lite")
    config = folder / "open_clip_config.json"
    edit_json(config, lambda c: c["model_cfg"]["text_cfg"].update(hf_pooler_type="cls_last_hidden_state_pooler"))
    cls = load_backbone(folder)
    assert cls.fingerprint != tiny_lite.fingerprint
    assert (cls.encode_text(TEXTS) - tiny_lite.encode_text(TEXTS)).abs().max() > 0.1


def test_a_minilm_without_its_configuration_is_refused(tmp_path: Path) -> None:
    """Its heads are 32 wide, where other BERTs' are 64, and no tensor tells."""
    folder = write_lite(tmp_path / "lite")
    (folder / "config.json").unlink()
    name = "sentence-transformers/all-MiniLM-L6-v2"
    edit_json(folder / "open_clip_config.json", lambda c: c["model_cfg"]["text_cfg"].update(hf_model_name=name))
    assert f"the number of heads of '{name}' is not told; copy its config.json into the folder" in refusal(folder)


def test_a_tokenizer_that_cuts_and_pads_by_itself(tmp_path: Path, tiny_lite: Backbone) -> None:
    """As the published file of MiniLM does, at 128 tokens; the context length alone decides here."""
    folder = write_lite(tmp_path / "lite")
    content = json.loads((PARITY / "tokenizer.json").read_text())
    content["truncation"] = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    content["padding"] = {
        "strategy": {"Fixed": 128},
        "direction": "Right",
        "pad_to_multiple_of": None,
        **{"pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert load_backbone(folder).tokenize(TEXTS).equal(tiny_lite.tokenize(TEXTS))
