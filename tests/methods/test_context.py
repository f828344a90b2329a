"""Prompts with learned vectors: where the class name stands, how vectors start, what does not fit, memory that stays bounded."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from biomedcoop.backbones.base import Backbone
from biomedcoop.errors import UserError
from biomedcoop.methods import context as context_module
from biomedcoop.methods.context import RANDOM_STD, ClassPrompts, ContextSettings, encode_prompts

SETTINGS = ContextSettings()
NAMES = ["cyst", "a tumour of the left kidney", "stone"]
KINDS = ("tiny", "tiny_clip_vit", "tiny_clip_resnet", "tiny_lite", "tiny_siglip")


@pytest.fixture(params=KINDS)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    found: Backbone = request.getfixturevalue(request.param)
    return found


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("position", "text"),
    [("end", "a photo of a {}."), ("middle", "a photo {} of a."), ("front", "{} a photo of a.")],
)
def test_a_context_of_words_is_the_text_they_make(position: str, text: str, backbone: Backbone) -> None:
    """Names of one, several and split tokens: each keeps its true length, so the words stand where they should."""
    words = len(context_module.word_ids(backbone, "a photo of a"))
    halves = [len(context_module.word_ids(backbone, half)) for half in ("a photo", "of a")]
    assert halves[0] == halves[1] == words // 2  # else "middle" would cut a word
    prompts = ClassPrompts(backbone, NAMES, replace(SETTINGS, class_position=position, n_context=words))
    with torch.no_grad():
        features = prompts.encode(prompts.initial_context([1, 2]))
        plain = backbone.encode_text([text.replace("{}", name) for name in NAMES])
    assert features.shape == (2, 3, backbone.embed_dim)
    for run in features:
        close(run, plain)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_padding_to_the_whole_context_changes_nothing(position: str, backbone: Backbone) -> None:
    """Prompts as long as the tower reads give the features and gradients of prompts padded to the longest of them."""
    prompts = ClassPrompts(backbone, NAMES, replace(SETTINGS, class_position=position, context_init="random"))
    missing = backbone.context_length - prompts.mask.shape[1]
    assert missing > 0
    padding = backbone.tokenize([""])[:1, :1].expand(len(NAMES), missing)
    fixed = torch.cat([prompts.fixed, backbone.embed_tokens(padding).to(prompts.fixed.dtype)], dim=1)
    slots, mask = F.pad(prompts.slots, (0, 0, 0, missing)), F.pad(prompts.mask, (0, missing))
    found = []
    for parts in ((prompts.fixed, prompts.slots, prompts.mask), (fixed, slots, mask)):
        context = prompts.initial_context([1]).requires_grad_()
        features = encode_prompts(backbone, *parts, context)
        weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(2))
        (gradient,) = torch.autograd.grad((features * weights).sum(), context)
        assert gradient.abs().amax(-1).min() > 0
        found.append((features.detach(), gradient))
    close(found[0][0], found[1][0])
    scale = float(found[0][1].abs().max())
    torch.testing.assert_close(found[0][1], found[1][1], atol=5e-6 * scale, rtol=0)


def test_class_specific_contexts_start_alike_and_go_their_own_ways(backbone: Backbone) -> None:
    words = len(context_module.word_ids(backbone, "a photo of a"))
    shared, own = (
        ClassPrompts(backbone, NAMES, replace(SETTINGS, class_specific=s, n_context=words)) for s in (False, True)
    )
    context = own.initial_context([1])
    assert context.shape == (1, 3, words, backbone.token_dim)
    with torch.no_grad():
        close(own.encode(context), shared.encode(shared.initial_context([1])))
    context = context.requires_grad_()
    own.encode(context)[0, 1].sum().backward()
    grad = context.grad
    assert grad is not None
    assert grad[0, 1].abs().sum() > 0
    assert not grad[0, [0, 2]].any()


def test_random_contexts_are_of_the_seed(backbone: Backbone) -> None:
    prompts = ClassPrompts(backbone, NAMES, replace(SETTINGS, context_init="random", n_context=16))
    context = prompts.initial_context([5, 6])
    assert context.shape == (2, 16, backbone.token_dim)
    assert torch.equal(context[1], prompts.initial_context([6])[0])
    assert not torch.equal(context[0], context[1])
    assert float(context.std()) == pytest.approx(RANDOM_STD, rel=0.1)
    assert abs(float(context.mean())) < RANDOM_STD / 10


def test_words_stand_last_in_a_longer_context(tiny: Backbone) -> None:
    short, long = (ClassPrompts(tiny, NAMES, replace(SETTINGS, n_context=m)) for m in (4, 7))
    words, context = short.initial_context([3])[0], long.initial_context([3])[0]
    assert torch.equal(context[3:], words)
    assert 0 < float(context[:3].std()) < 2 * RANDOM_STD


def test_the_published_initial_context(tiny: Backbone) -> None:
    ids = tiny.tokenize(["a photo of a"])
    prompts = ClassPrompts(tiny, NAMES, SETTINGS)
    assert torch.equal(prompts.initial_context([1])[0], tiny.embed_tokens(ids)[0, 1:-1])


@pytest.mark.parametrize("words", ["", "   ", "word " * 200])
def test_context_words_that_do_not_fit(words: str, tiny: Backbone) -> None:
    with pytest.raises(UserError, match=r"context_words .* have \d+ tokens, n_context is 4; change") as caught:
        ClassPrompts(tiny, ["cyst"], replace(SETTINGS, context_words=words)).initial_context([1])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(("name", "m"), [("cyst " * 100, 4), ("cyst", 64)])
def test_prompts_that_do_not_fit(name: str, m: int, tiny: Backbone) -> None:
    with pytest.raises(UserError, match=r"make (207|70) tokens, model reads 64; shorten the name or lower") as caught:
        ClassPrompts(tiny, ["stone", name], replace(SETTINGS, n_context=m))
    assert len(str(caught.value)) < 250


def test_many_prompts_take_several_passes(tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same embeddings and gradients as in one pass, and no pass of more prompts than the limit."""
    prompts = ClassPrompts(tiny, NAMES, SETTINGS)
    start = prompts.initial_context(range(7)) + 0.1 * torch.randn(7, 4, 64, generator=torch.Generator().manual_seed(0))
    sizes: list[int] = []
    whole = type(tiny).encode_text_embeddings

    def counting(self: Backbone, embeddings: torch.Tensor, *rest: object) -> torch.Tensor:
        sizes.append(len(embeddings))
        return whole(self, embeddings, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(type(tiny), "encode_text_embeddings", counting)
    found = []
    for limit in (256, 6, 1):
        monkeypatch.setattr(context_module, "TEXTS_PER_PASS", limit)
        sizes.clear()
        context = start.clone().requires_grad_()
        features = encode_prompts(tiny, prompts.fixed, prompts.slots, prompts.mask, context)
        features.square().sum().backward()
        assert max(sizes) <= max(limit, 3)
        found.append((features.detach(), context.grad))
    for features, grad in found[1:]:
        close(features, found[0][0])
        torch.testing.assert_close(grad, found[0][1], atol=1e-4, rtol=1e-4)
