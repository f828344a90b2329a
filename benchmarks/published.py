"""The published way of training BiomedCoOp re-enacted with this package's own modules, for its order of work.

Every prompt is padded to 256 tokens, the text tower computes every token of every layer with BERT's dropout on, the image tower
runs twice a step on the same images, the sentences are scored one index after another, and nothing is kept from step to step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from floors import clock
from torch import Tensor
from torch.nn import functional as F

from biomedcoop.backbones.base import Drop
from biomedcoop.backbones.checkpoint import read_weights
from biomedcoop.backbones.open_clip import OpenClipBackbone, Towers
from biomedcoop.methods.biomedcoop import BiomedCoOpSettings

DROPOUT = 0.1

MEASURED = {
    "first image pass": (0.581, 0.528),
    "second image pass": (0.549, 0.533),
    "text forward": (1.298, 1.215),
    "backward": (0.782, 0.757),
}
MEASURED_STEP = (3.28, 3.04)
"""Median and least seconds of the published code measured on two cores (float32, torch 2.13): 4 classes, batch of 4."""


def bert_dropout(x: Tensor) -> Tensor:
    return F.dropout(x, DROPOUT)


def encode_images(backbone: OpenClipBackbone, pixels: Tensor) -> Tensor:
    """Unit-norm features [B, E]; the last block computes every token."""
    trunk = backbone.towers.visual.trunk
    x = trunk.embed(pixels)
    for block in trunk.blocks:
        x = block(x)
    return F.normalize(backbone.towers.visual.head.proj(trunk.norm(x)[:, 0]), dim=-1)


def encode_texts(backbone: OpenClipBackbone, embeddings: Tensor, mask: Tensor, drop: Drop | None = None) -> Tensor:
    """Word embeddings [B, L, D] -> raw features [B, E]; the last layer computes every token."""
    bert = backbone.towers.text.transformer
    x = bert.embeddings(embeddings)
    x = x if drop is None else drop(x)
    keys = mask[:, None, None, :]
    for layer in bert.encoder.layer:
        x = layer(x, x, keys, drop)
    return backbone.towers.text.proj(x[:, 0])  # type: ignore[no-any-return]


def padded(backbone: OpenClipBackbone, texts: Sequence[str]) -> Tensor:
    """Token ids [B, 256]."""
    ids = backbone.tokenize(texts)
    return F.pad(ids, (0, backbone.context_length - ids.shape[1])).to(backbone.device)


def load(folder: Path, like: Towers) -> Towers:
    """The checkpoint read whole into towers whose first weights have been drawn; the published code does it twice."""
    image, text = like.visual.trunk.config, like.text.transformer.config
    towers = Towers(image, text, like.text.proj[0].out_features, like.visual.head.proj.out_features)
    path = folder / "open_clip_pytorch_model.bin"
    state = torch.load(path, weights_only=True) if path.exists() else read_weights(folder)
    towers.load_state_dict(state, strict=False)  # the published file holds positions, which are no weights
    return towers


class Published:
    """A training run of one seed.

    Attributes:
        context: the learned vectors [M, D], shared by all classes.
        seconds: of each part, a value for each step.
    """

    def __init__(
        self,
        backbone: OpenClipBackbone,
        class_names: Sequence[str],
        teacher: Tensor,
        settings: BiomedCoOpSettings,
        drop: Drop | None = bert_dropout,
    ) -> None:
        self.backbone, self.teacher, self.settings, self.drop = backbone, teacher, settings, drop
        ids = padded(backbone, [f"{settings.context_words} {name}." for name in class_names])
        m = settings.n_context
        with torch.no_grad():
            embeddings = backbone.embed_tokens(ids)
        self.mask = backbone.mask(ids)
        self.before, self.behind = embeddings[:, :1], embeddings[:, 1 + m :]
        self.context = embeddings[0, 1 : 1 + m].clone().requires_grad_()
        self.optimizer = torch.optim.SGD(
            [self.context], lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
        )
        self.seconds: dict[str, list[float]] = {part: [] for part in (*MEASURED, "rest")}

    def encode_prompts(self) -> Tensor:
        """Unit-norm class embeddings [C, E]."""
        context = self.context.expand(len(self.before), -1, -1)
        prompts = torch.cat([self.before, context, self.behind], dim=1)
        return F.normalize(encode_texts(self.backbone, prompts, self.mask, self.drop), dim=-1)

    def loss(self, pixels: Tensor, labels: Tensor, part: Callable[..., object]) -> Tensor:
        """Loss of a batch; ``part`` is told what begins."""
        settings, scale = self.settings, self.backbone.logit_scale
        part("text forward")
        t = self.encode_prompts()
        part("first image pass")
        f = encode_images(self.backbone, pixels)
        part("rest")
        logits = scale * f @ t.T
        with torch.no_grad():
            part("second image pass")
            frozen = encode_images(self.backbone, pixels)
            part("rest")
            teacher = F.normalize(self.teacher, dim=-1)  # [C, P, E]
            scores = torch.tensor(
                [
                    (scale * f @ teacher[:, i].T).max(dim=1).values.mean().item()  # one index after another
                    for i in range(teacher.shape[1])
                ]
            )
            kept = ((scores - scores.mean()) / scores.std()).abs() <= settings.threshold
            selected = F.normalize(teacher[:, kept.to(teacher.device)].mean(1), dim=-1)
            target = (scale * frozen @ selected.T).log_softmax(-1)
        sccm = F.mse_loss(t, F.normalize(teacher.mean(1), dim=-1))
        divergence = F.kl_div(logits.log_softmax(-1), target, reduction="sum", log_target=True) / logits.numel()
        return F.cross_entropy(logits, labels) + settings.sccm_weight * sccm + settings.kdsp_weight * divergence

    def step(self, pixels: Tensor, labels: Tensor) -> None:
        """One step; its parts' seconds are kept."""
        with parts(self.seconds, self.backbone.device) as part:
            loss = self.loss(pixels, labels, part)
            if not torch.isfinite(loss).all():
                raise FloatingPointError("the loss is not finite")
            self.optimizer.zero_grad()
            part("backward")
            loss.backward()
            part("rest")
            self.optimizer.step()
            loss.item()


@contextmanager
def parts(seconds: dict[str, list[float]], device: torch.device) -> Iterator[Callable[[str], None]]:
    """Time what happens between calls of the function that is handed out; each call says what begins."""
    spent = dict.fromkeys(seconds, 0.0)
    now, since = "rest", clock(device)

    def part(name: str) -> None:
        nonlocal now, since
        at = clock(device)
        spent[now] += at - since
        now, since = name, at

    yield part
    part("rest")
    for name, value in spent.items():
        seconds[name].append(value)
