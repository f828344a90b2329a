"""Texts of the classes are encoded once for a backbone, and what a caller does with them changes nothing for the next."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.methods.class_embeddings import template_embeddings

NAMES = ["cyst", "stone"]


def test_each_list_of_texts_is_encoded_once(tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    encode = type(tiny).encode_text
    monkeypatch.setattr(type(tiny), "encode_text", lambda self, texts: calls.append(list(texts)) or encode(self, texts))
    template = "a scan that no other test has of a {}."
    first = template_embeddings(tiny, NAMES, template)
    kept = first.clone()
    first.zero_()
    assert torch.equal(template_embeddings(tiny, NAMES, template), kept)
    raw = template_embeddings(tiny, NAMES, template, unit=False)
    assert torch.equal(F.normalize(raw, dim=-1), kept)
    template_embeddings(tiny, NAMES[::-1], template)
    assert [len(texts) for texts in calls] == [2, 2]


def test_another_backbone_has_its_own() -> None:
    one, other = load_backbone("mini"), load_backbone("mini")
    before = template_embeddings(one, NAMES, "a photo of a {}.")
    with torch.no_grad():
        next(parameter for name, parameter in other.towers.named_parameters() if "word_embeddings" in name).mul_(0.5)
    assert not torch.equal(template_embeddings(other, NAMES, "a photo of a {}."), before)
    assert torch.equal(template_embeddings(one, NAMES, "a photo of a {}."), before)
