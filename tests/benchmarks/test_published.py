"""The re-enacted published step computes what ours computes; only its order of work is another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from benchmarks.speed.published import Published, bert_dropout, encode_images, load
from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.open_clip import OpenClipBackbone
from biomedcoop.methods import Task, get_method
from biomedcoop.methods.biomedcoop import BiomedCoOpSettings
from biomedcoop.methods.context import ClassPrompts, ContextMethod

NAMES = ("glioma tumor", "pituitary tumor", "normal brain")
# another weight for each term, so that none can stand in for another; the outlier rule drops some sentences
SETTINGS = BiomedCoOpSettings(sccm_weight=3.0, kdsp_weight=2.0, threshold=1.0, lr=0.1)


@pytest.fixture
def batch(tiny: Backbone) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pixels, labels and sentence features."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(4, 3, tiny.image_size, tiny.image_size, generator=generator)
    sentences = torch.randn(len(NAMES), 50, tiny.embed_dim, generator=generator)
    return pixels, torch.tensor([0, 1, 2, 1]), sentences


def test_its_loss_and_its_step_are_ours_without_dropout(
    tiny: Backbone, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    assert isinstance(tiny, OpenClipBackbone)
    pixels, labels, sentences = batch
    published = Published(tiny, NAMES, sentences, SETTINGS, drop=None)
    method = get_method("biomedcoop")
    assert isinstance(method, ContextMethod)
    task = Task(tiny, NAMES, tiny.encode_image(pixels)[None], labels[None], sentences)
    prompts = ClassPrompts(tiny, NAMES, SETTINGS)
    context = prompts.initial_context([1]).requires_grad_()
    torch.testing.assert_close(published.context, context[0])

    index = torch.arange(4)[None]
    losses = method.losses(task, SETTINGS, lambda: F.normalize(prompts.encode(context), dim=-1))
    own = losses(index).sum()
    theirs = published.loss(pixels, labels, lambda name: None)
    # sums of another order and length: 256 tokens of which all but a few are masked
    assert theirs.item() == pytest.approx(own.item(), rel=1e-5)

    method.train(task, SETTINGS, prompts, context, [(index, SETTINGS.lr)] * 2, [1])
    for _ in range(2):
        published.step(pixels, labels)
    torch.testing.assert_close(published.context, context[0], atol=1e-5, rtol=1e-4)


def test_its_parts_are_all_timed(tiny: Backbone, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    assert isinstance(tiny, OpenClipBackbone)
    pixels, labels, sentences = batch
    published = Published(tiny, NAMES, sentences, SETTINGS)
    for _ in range(2):
        published.step(pixels, labels)
    assert [len(values) for values in published.seconds.values()] == [2] * 5
    assert min(map(min, published.seconds.values())) > 0


def test_its_dropout_changes_the_text_pass_alone(
    tiny: Backbone, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    assert isinstance(tiny, OpenClipBackbone)
    pixels, _, sentences = batch
    with torch.no_grad():
        plain, dropped = (
            Published(tiny, NAMES, sentences, SETTINGS, drop).encode_prompts() for drop in (None, bert_dropout)
        )
        assert not torch.allclose(plain, dropped, atol=1e-3)
        unit = F.normalize(tiny.encode_image(pixels), dim=-1)
        torch.testing.assert_close(encode_images(tiny, pixels), unit, atol=1e-5, rtol=1e-4)


def test_its_towers_are_those_of_the_file(tiny: Backbone, parity: Path) -> None:
    assert isinstance(tiny, OpenClipBackbone)
    towers = load(parity / "model", tiny.towers)
    for name, tensor in tiny.towers.state_dict().items():
        assert torch.equal(towers.state_dict()[name], tensor), name
