"""The vocabulary of a text tower: its entries are what the tokenizer makes of words."""

from __future__ import annotations

import pytest
import torch

from biomedcoop.backbones.base import Backbone


@pytest.mark.parametrize("kind", ["tiny", "tiny_clip_vit", "tiny_lite"])
def test_a_whole_word_of_the_vocabulary_is_the_token_of_this_word(kind: str, request: pytest.FixtureRequest) -> None:
    backbone: Backbone = request.getfixturevalue(kind)
    words = {token.text: token for token in backbone.vocabulary() if token.whole}
    for word in ("a", "photo", "of"):
        ids = backbone.tokenize([word])[0]
        assert words[word].id == ids[1], word


@pytest.mark.parametrize("kind", ["tiny", "tiny_clip_vit", "tiny_lite"])
def test_special_tokens_are_left_out_and_the_others_have_embeddings(kind: str, request: pytest.FixtureRequest) -> None:
    backbone: Backbone = request.getfixturevalue(kind)
    tokens = backbone.vocabulary()
    ids = [token.id for token in tokens]
    assert ids == sorted(set(ids))
    first, last = (int(i) for i in backbone.tokenize([""])[0])
    assert first not in ids
    assert last not in ids
    assert not any(token.text.startswith(("[PAD", "[unused", "<|")) for token in tokens)
    assert backbone.embed_tokens(torch.tensor([ids])).isfinite().all()


def test_pieces_of_words_are_told_from_words(tiny: Backbone, tiny_clip_vit: Backbone) -> None:
    for backbone in (tiny, tiny_clip_vit):
        pieces = {token.text for token in backbone.vocabulary() if not token.whole}
        assert pieces
    assert all(token.whole != token.text.startswith("##") for token in tiny.vocabulary())
    assert "pho" in {token.text for token in tiny_clip_vit.vocabulary() if not token.whole}
    assert not any("</w>" in token.text or "\ufffd" in token.text for token in tiny_clip_vit.vocabulary())
