"""Checkpoints in the layout of the published code: the trainer's modules, optimiser and scheduler, pickled as it pickles them."""

from __future__ import annotations

import copy
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from biomedcoop.backbones.base import Backbone

RUN = "{trainer}/nctx4_cscFalse_ctpend/seed{seed}/prompt_learner"


class PromptLearner(nn.Module):
    """The learned context, and the word embeddings of "a photo of a <name>." around it, padded to the whole context length."""

    def __init__(self, backbone: Backbone, names: Sequence[str], context: torch.Tensor) -> None:
        super().__init__()
        ids = backbone.tokenize([f"a photo of a {name}." for name in names])
        padded = torch.zeros(len(names), backbone.context_length, dtype=torch.int64)
        padded[:, : ids.shape[1]] = ids
        with torch.no_grad():
            embedding = backbone.embed_tokens(padded)
        self.ctx = nn.Parameter(context.clone())
        self.ids = padded
        self.register_buffer("token_prefix", embedding[:, :1])
        self.register_buffer("token_suffix", embedding[:, 1 + context.shape[-2] :])


class TextEncoder(nn.Module):
    def __init__(self, towers: nn.Module) -> None:
        super().__init__()
        self.model = towers


class WholeModel(nn.Module):
    """What BiomedCoOp's trainer registers: the prompt learner with a second image tower, and both towers."""

    def __init__(self, backbone: Backbone, names: Sequence[str], context: torch.Tensor) -> None:
        super().__init__()
        towers = backbone.towers
        self.prompt_learner = PromptLearner(backbone, names, context)
        self.prompt_learner.ZS_image_encoder = copy.deepcopy(towers.visual)
        self.image_encoder = towers.visual
        self.text_encoder = TextEncoder(towers)
        self.logit_scale = towers.logit_scale


class ConstantWarmupScheduler(LRScheduler):
    """Like the one of dassl, which the trainer takes; its module is not needed to read the file."""

    def __init__(self, optimiser: torch.optim.Optimizer, successor: LRScheduler) -> None:
        self.successor, self.warmup_epoch, self.cons_lr = successor, 1, 1e-5
        super().__init__(optimiser)

    def get_lr(self) -> list[float]:
        return [self.cons_lr for _ in self.base_lrs]


@contextmanager
def module_of_dassl() -> Iterator[None]:
    """While the block runs, the scheduler is pickled under its published name."""
    parts = ("dassl", "dassl.optim", "dassl.optim.lr_scheduler")
    modules = {name: types.ModuleType(name) for name in parts}
    modules[parts[-1]].ConstantWarmupScheduler = ConstantWarmupScheduler  # type: ignore[attr-defined]
    before = ConstantWarmupScheduler.__module__
    sys.modules.update(modules)
    ConstantWarmupScheduler.__module__ = parts[-1]
    try:
        yield
    finally:
        ConstantWarmupScheduler.__module__ = before
        for name in parts:
            del sys.modules[name]


def trained(model: nn.Module, learned: Sequence[nn.Parameter], epoch: int = 100) -> dict[str, Any]:
    """The dict that the trainer saves after its last epoch: optimiser with momentum and scheduler among it."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.0025, momentum=0.9, weight_decay=5e-4)
    scheduler = ConstantWarmupScheduler(optimiser, CosineAnnealingLR(optimiser, float(epoch)))
    values = [parameter.detach().clone() for parameter in learned]
    for parameter in learned:
        parameter.requires_grad_()
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    scheduler.step()
    with torch.no_grad():
        for parameter, value in zip(learned, values, strict=True):
            parameter.copy_(value)
    return {
        "state_dict": OrderedDict(model.state_dict()),
        "epoch": epoch,
        "optimizer": optimiser.state_dict(),
        "scheduler": scheduler.state_dict(),
        "val_result": None,
    }


def save(content: object, file: Path) -> Path:
    """Write a checkpoint as the trainer does; its folders are made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with module_of_dassl():
        torch.save(content, file)
    return file


def write_biomedcoop(file: Path, backbone: Backbone, names: Sequence[str], context: torch.Tensor) -> Path:
    """A checkpoint of BiomedCoOp: the whole model."""
    model = WholeModel(backbone, names, context)
    return save(trained(model, [model.prompt_learner.ctx]), file)
