"""BERT encoder (Devlin et al. 2019, arXiv 1810.04805) with the tensor names of transformers' ``BertModel``.

Plain torch for the same reason as the image tower: importing transformers alone takes longer than a whole prediction.
The tower starts from token *embeddings*, because learned context vectors replace word embeddings. Position and token-type
embeddings and the embedding LayerNorm still apply to them. The tower is frozen and has no dropout of its own. A caller may pass
one; it is applied where BERT has dropout: embeddings, attention probabilities, and the outputs of attention and of the MLP.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biomedcoop.backbones.base import Drop


@dataclass(frozen=True)
class BertConfig:
    """Sizes of the tower. ``width`` must be a multiple of ``heads``."""

    vocab_size: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    positions: int
    token_types: int
    norm_eps: float = 1e-12


def read_bert_config(
    shape: Callable[[str], torch.Size], *, layers: int, heads: int | None, norm_eps: float
) -> BertConfig:
    """The sizes that the tensors of a checkpoint have.

    Args:
        shape: name of a matrix -> its shape.
        layers, norm_eps: what no shape tells.
        heads: 64 values for each where it is None, as in BERT base and large.
    """
    words, width = shape("embeddings.word_embeddings.weight")
    return BertConfig(
        vocab_size=words,
        width=width,
        layers=layers,
        heads=heads or max(1, width // 64),
        mlp_width=shape("encoder.layer.0.intermediate.dense.weight")[0],
        positions=shape("embeddings.position_embeddings.weight")[0],
        token_types=shape("embeddings.token_type_embeddings.weight")[0],
        norm_eps=norm_eps,
    )


def empty_embedding(rows: int, width: int) -> nn.Embedding:
    """An embedding whose weights are filled later: random weights on the meta device would make torch import its compiler."""
    return nn.Embedding(rows, width, _weight=torch.empty(rows, width))


class Embeddings(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word_embeddings = empty_embedding(config.vocab_size, config.width)
        self.position_embeddings = empty_embedding(config.positions, config.width)
        self.token_type_embeddings = empty_embedding(config.token_types, config.width)
        self.LayerNorm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def forward(self, embeddings: Tensor) -> Tensor:  # word embeddings [B, L, W] -> [B, L, W]
        length = embeddings.shape[1]
        # the order of the sum is the one of transformers, so that results agree to the last bits
        x = embeddings + self.token_type_embeddings.weight[0] + self.position_embeddings.weight[:length]
        return self.LayerNorm(x)  # type: ignore[no-any-return]


class SelfAttention(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width)
        self.value = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, queries: Tensor, mask: Tensor, drop: Drop | None) -> Tensor:
        """Attention of the queries [B, Q, W] to all states [B, L, W] -> [B, Q, W]."""
        q, k, v = (
            f(states).view(*states.shape[:2], self.heads, -1).transpose(1, 2)  # [B, H, Q or L, W/H]
            for f, states in ((self.query, queries), (self.key, x), (self.value, x))
        )
        if drop is None:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:  # the fused product has no way to drop with random numbers of the caller's
            scores = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).masked_fill(~mask, float("-inf"))
            out = drop(scores.softmax(-1)) @ v
        return out.transpose(1, 2).flatten(2)


class AddNorm(nn.Module):
    """Dense layer, residual sum, LayerNorm (post-norm)."""

    def __init__(self, inputs: int, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, config.width)
        self.LayerNorm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def forward(self, x: Tensor, residual: Tensor, drop: Drop | None) -> Tensor:
        x = self.dense(x)
        return self.LayerNorm((x if drop is None else drop(x)) + residual)  # type: ignore[no-any-return]


class AttentionLayer(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.self = SelfAttention(config)
        self.output = AddNorm(config.width, config)

    def forward(self, x: Tensor, queries: Tensor, mask: Tensor, drop: Drop | None) -> Tensor:
        return self.output(self.self(x, queries, mask, drop), queries, drop)  # type: ignore[no-any-return]


class Intermediate(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.width, config.mlp_width)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.dense(x))


class Layer(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = AttentionLayer(config)
        self.intermediate = Intermediate(config)
        self.output = AddNorm(config.mlp_width, config)

    def forward(self, x: Tensor, queries: Tensor, mask: Tensor, drop: Drop | None = None) -> Tensor:
        x = self.attention(x, queries, mask, drop)
        return self.output(self.intermediate(x), x, drop)  # type: ignore[no-any-return]


class Encoder(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.layers))


class Bert(nn.Module):
    """Text tower: word embeddings [B, L, W] and mask [B, L] -> pooled last hidden state [B, W].

    Args:
        mean: pool by the mean of all real tokens (sentence encoders) in place of CLS.
    """

    def __init__(self, config: BertConfig, *, mean: bool = False) -> None:
        super().__init__()
        self.config, self.mean = config, mean
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)

    def forward(self, embeddings: Tensor, mask: Tensor, drop: Drop | None = None) -> Tensor:
        x = self.embeddings(embeddings)
        if drop is not None:
            x = drop(x)
        # True where a key may be attended to; padding changes nothing for the real tokens
        keys = mask.to(torch.bool)[:, None, None, :]
        last = len(self.encoder.layer) - 1
        for number, layer in enumerate(self.encoder.layer):
            # where only the CLS output of the last layer is used, only it is computed (dropout is drawn for all, as published)
            alone = number == last and drop is None and not self.mean
            x = layer(x, x[:, :1] if alone else x, keys, drop)
        if self.mean:
            real = mask.to(x.dtype)[:, :, None]
            return (x * real).sum(1) / real.sum(1)  # type: ignore[no-any-return]
        return x[:, 0]  # type: ignore[no-any-return]


class PooledBert(Bert):
    """A BERT with the dense layer and tanh that its authors put behind CLS ("pooler")."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.pooler = nn.ModuleDict({"dense": nn.Linear(config.width, config.width)})

    def forward(self, embeddings: Tensor, mask: Tensor, drop: Drop | None = None) -> Tensor:
        return torch.tanh(self.pooler["dense"](super().forward(embeddings, mask, drop)))
