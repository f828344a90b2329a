"""PMC-CLIP (Lin et al. 2023, arXiv 2303.07240), loaded from the three files that its authors publish.

The image tower is the ResNet-50 of CLIP with 768 outputs and 8 heads of its attention pooling. The text tower is BiomedBERT
(Gu et al. 2021, arXiv 2007.15779) with its pooler, and a matrix behind it. A folder holds, each as ``.pth`` or ``.safetensors``:

* ``image_encoder(resnet50)``: tensors by the names of CLIP's ResNet, with or without ``visual.`` in front;
* ``text_encoder``: tensors by the names of transformers' ``BertModel``, with or without ``bert.`` in front;
* ``text_projection_layer``: one matrix, without a name or with that of the file;

and BiomedBERT's ``config.json`` and tokenizer. Batch normalisation always uses the running statistics of the checkpoint. The
published BiomedCoOp puts the image tower in training mode instead: it normalises by each batch, and the statistics drift.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from biomedcoop.backbones.activations import activations_of
from biomedcoop.backbones.base import Backbone, Drop
from biomedcoop.backbones.bert import BertConfig, PooledBert, read_bert_config
from biomedcoop.backbones.catalogue import PMC_CLIP_WEIGHTS, WEIGHTS_ENDINGS
from biomedcoop.backbones.checkpoint import check_tensors, fill, find_weights, fingerprint, read_weights, shape_of
from biomedcoop.backbones.clip import side
from biomedcoop.backbones.clip_resnet import RESNET_STRIDE, ModifiedResNet, ResNetConfig
from biomedcoop.backbones.configuration import MEAN, STD
from biomedcoop.backbones.open_clip_config import read_bert_description
from biomedcoop.backbones.tokenizer import Tokenizer
from biomedcoop.errors import UserError

LAYERS, HEADS = (3, 4, 6, 3), 8
"""Bottlenecks in each stage of the image tower, and heads of its attention pooling; no tensor tells the heads."""

CONTEXT_LENGTH = 77
"""Tokens to which the published code cuts a text."""

LOGIT_SCALE = 4.4292
"""Logarithm of the scale of the cosine similarities, a constant of the published code."""

IMAGE, TEXT, PROJECTION = PMC_CLIP_WEIGHTS

MARKS = {IMAGE: "attnpool.positional_embedding", TEXT: "embeddings.word_embeddings.weight"}
"""A tensor that only one of the towers has."""


class Towers(nn.Module):
    """Both towers, and the matrix [W, E] behind the text tower."""

    def __init__(self, image: ResNetConfig, text: BertConfig, embed_dim: int) -> None:
        super().__init__()
        self.visual = ModifiedResNet(image, embed_dim)
        self.text = PooledBert(text)
        self.text_projection = nn.Parameter(torch.zeros(text.width, embed_dim))

    def encode_text(self, embeddings: Tensor, mask: Tensor, drop: Drop | None = None) -> Tensor:
        return self.text(embeddings, mask, drop) @ self.text_projection  # type: ignore[no-any-return]


class PmcClipBackbone(Backbone):
    """A loaded PMC-CLIP. Use :func:`load_pmc_clip`.

    Image layers are named as in the checkpoint: for instance ``layer4`` ([B, C, H, W]).
    """

    towers: Towers

    def __init__(self, name: str, towers: Towers, tokenizer: Tokenizer, digest: str) -> None:
        self.name, self.fingerprint = name, digest
        self.towers, self.tokenizer = towers, tokenizer
        self.device, self.dtype = towers.text_projection.device, towers.text_projection.dtype
        self.image_tower = towers.visual
        self.tower_kind, self.map_layer = "resnet", "layer4"
        # convolutions gain no speed on a CPU, and many layers add up the rounding; see precision.py
        self.precisions = ("float32",)
        self.image_size = towers.visual.config.image_size
        self.mean, self.std = MEAN, STD
        self.context_length = tokenizer.context_length
        self.token_dim, self.embed_dim = towers.text_projection.shape
        self.logit_scale = math.exp(LOGIT_SCALE)

    def embed_tokens(self, ids: Tensor) -> Tensor:
        return self.towers.text.embeddings.word_embeddings(ids)  # type: ignore[no-any-return]

    def encode_text_embeddings(self, embeddings: Tensor, mask: Tensor, drop: Drop | None = None) -> Tensor:
        return self.towers.encode_text(embeddings, mask, drop)

    def image_activations(self, pixels: Tensor, layer: str) -> tuple[Tensor, Tensor]:
        return activations_of(self, pixels, self.towers.visual, layer)

    def attention_maps(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        raise UserError(
            f"{self.name}: its image tower is a ResNet, which has no attention maps; use a backbone with a ViT"
        )


def load_pmc_clip(
    folder: Path, *, name: str | None = None, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> PmcClipBackbone:
    """Load PMC-CLIP from the files that its authors publish; the other arguments as for
    :func:`biomedcoop.backbones.open_clip.load_open_clip`.

    Args:
        folder: holds the three files of weights, BiomedBERT's ``config.json`` and its tokenizer.

    Raises:
        UserError: a file is missing, unreadable or another's; tensors are missing, unexpected, misshapen or not finite.
    """
    image, text = _read_tower(folder, IMAGE, "visual."), _read_tower(folder, TEXT, "bert.")
    projection = read_weights(folder, _names(PROJECTION))
    towers = build_towers(image, text, projection, folder)
    tokenizer = Tokenizer.from_directory(folder, CONTEXT_LENGTH)
    tokenizer.check_fits(towers.text.config.vocab_size, folder)
    facts = [
        dataclasses.asdict(towers.visual.config),
        dataclasses.asdict(towers.text.config),
        {"mean": MEAN, "std": STD, "logit_scale": LOGIT_SCALE},
    ]
    state = {f"visual.{key}": value for key, value in image.items()}
    state |= {f"text.{key}": value for key, value in text.items()} | {"text_projection": projection[PROJECTION]}
    digest = fingerprint(facts, state, tokenizer.signature())
    fill(towers, state, device, dtype)
    return PmcClipBackbone(name or folder.name, towers, tokenizer, digest)


def _names(weights: str) -> list[str]:
    return [weights + ending for ending in WEIGHTS_ENDINGS]


def _read_tower(folder: Path, weights: str, prefix: str) -> dict[str, Tensor]:
    """The tensors of one tower, without the prefix that all of them may have."""
    state = read_weights(folder, _names(weights))
    common = prefix if all(key.startswith(prefix) for key in state) else ""
    return {key.removeprefix(common): value for key, value in state.items()}


def build_towers(
    image: Mapping[str, Tensor], text: Mapping[str, Tensor], projection: Mapping[str, Tensor], folder: Path
) -> Towers:
    """Towers on the meta device whose sizes fit the tensors, after checking every one of them.

    Args:
        image, text: tensors of the towers, by the names of the towers' modules.
        projection: the matrix behind the text tower, [W, E], alone.
        folder: where they come from.
    """
    paths = {weights: find_weights(folder, _names(weights)) for weights in PMC_CLIP_WEIGHTS}
    for ours, theirs, tensors in ((IMAGE, TEXT, image), (TEXT, IMAGE, text)):
        if MARKS[theirs] in tensors:
            raise UserError(f"{paths[ours]}: holds the tensors of {theirs}; exchange the files or download them again")
    described = read_bert_description(folder)
    positions = shape_of(image, MARKS[IMAGE], 2, paths[IMAGE])[0]
    width = shape_of(image, "layer1.0.conv1.weight", 4, paths[IMAGE])[0]
    embed_dim = shape_of(image, "attnpool.c_proj.weight", 2, paths[IMAGE])[0]
    resnet = ResNetConfig(side(positions) * RESNET_STRIDE, width, LAYERS, HEADS)
    bert = read_bert_config(lambda key: shape_of(text, key, 2, paths[TEXT]), **dataclasses.asdict(described))
    if bert.width % bert.heads:
        raise UserError(f"{folder}: the text tower's width {bert.width} is no multiple of {bert.heads} heads")
    if bert.positions < CONTEXT_LENGTH:
        raise UserError(
            f"{paths[TEXT]}: has {bert.positions} positions; texts of PMC-CLIP have up to {CONTEXT_LENGTH} tokens"
        )
    with torch.device("meta"):
        towers = Towers(resnet, bert, embed_dim)
    shapes = {
        weights: {key: value.shape for key, value in part.state_dict().items()}
        for weights, part in ((IMAGE, towers.visual), (TEXT, towers.text))
    } | {PROJECTION: {PROJECTION: towers.text_projection.shape}}
    for weights, tensors in ((IMAGE, image), (TEXT, text), (PROJECTION, projection)):
        check_tensors(tensors, shapes[weights], paths[weights])
    return towers
