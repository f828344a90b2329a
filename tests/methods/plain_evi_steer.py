"""Evi-Steer by a plain ViT and a plain BERT in float64, token by token as the paper states it; no code of the package."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = Mapping[str, Tensor]


def linear(x: Tensor, w: Weights, name: str) -> Tensor:
    out = x @ w[f"{name}.weight"].T
    return out + w[f"{name}.bias"] if f"{name}.bias" in w else out


def norm(x: Tensor, w: Weights, name: str, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, real: Tensor | None = None) -> Tensor:
    outs, width = [], q.shape[-1] // heads
    for h in range(heads):
        part = slice(h * width, (h + 1) * width)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(width)
        if real is not None:
            scores = scores.masked_fill(~real[:, None, :], -torch.inf)
        outs.append(scores.softmax(-1) @ v[..., part])
    return torch.cat(outs, -1)


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def steered(x: Tensor, module: Weights, u_t: Tensor | None) -> tuple[Tensor, Tensor]:
    """Tokens [B, T, D] and their α, with the module's W↓, W↑, w and g; ``u_t`` for an image."""
    r = module["up"].shape[1]
    mu, u = x @ module["down"][:r].T, x @ module["down"][r:].T
    e = torch.log1p(torch.exp(u**2)) + 1e-6
    alpha = e + 1
    if u_t is None:
        trusted = 1 - 1 / alpha
    else:
        u_v = 1 / alpha
        m_v, m_t = 1 - u_v, 1 - u_t
        conflict = m_t * u_v + u_t * m_v
        trusted = m_t * m_v / (1 - conflict + 1e-6)
    confidence = torch.sigmoid((trusted * module["weight"]).sum(-1, keepdim=True))
    return x + torch.sigmoid(module["gate"]) * confidence * (mu @ module["up"].T), alpha


def encode_texts(
    w: Weights, ids: Tensor, heads: int, layers: int, modules: Sequence[Weights]
) -> tuple[Tensor, list[Tensor]]:
    """Class embeddings [C, E] of unit norm, and α of CLS [C, r] for each steered layer."""
    bert, real = "text.transformer.", ids != 0
    e = bert + "embeddings."
    x = w[e + "word_embeddings.weight"][ids] + w[e + "position_embeddings.weight"][: ids.shape[1]]
    x = norm(x + w[e + "token_type_embeddings.weight"][0], w, e + "LayerNorm", 1e-12)
    alphas = []
    for i in range(layers):
        if i:
            x, alpha = steered(x, modules[i - 1], None)
            alphas.append(alpha[:, 0])
        at = f"{bert}encoder.layer.{i}."
        q, k, v = (linear(x, w, f"{at}attention.self.{part}") for part in ("query", "key", "value"))
        attended = linear(attention(q, k, v, heads, real), w, at + "attention.output.dense")
        x = norm(attended + x, w, at + "attention.output.LayerNorm", 1e-12)
        out = linear(gelu(linear(x, w, at + "intermediate.dense")), w, at + "output.dense")
        x = norm(out + x, w, at + "output.LayerNorm", 1e-12)
    embeddings = gelu(x[:, 0] @ w["text.proj.0.weight"].T) @ w["text.proj.2.weight"].T
    return F.normalize(embeddings, dim=-1), alphas


def encode_images(
    w: Weights, pixels: Tensor, heads: int, layers: int, modules: Sequence[Weights], u_t: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Features [B, E] of unit norm, and α [B, T, r] for each steered block."""
    trunk = "visual.trunk."
    kernel = w[trunk + "patch_embed.proj.weight"]
    p = kernel.shape[-1]
    patches = F.unfold(pixels, p, stride=p).transpose(1, 2) @ kernel.flatten(1).T + w[trunk + "patch_embed.proj.bias"]
    x = torch.cat([w[trunk + "cls_token"].expand(len(pixels), 1, -1), patches], 1) + w[trunk + "pos_embed"]
    alphas = []
    for i in range(layers):
        if i:
            x, alpha = steered(x, modules[i - 1], u_t[i - 1])
            alphas.append(alpha)
        at = f"{trunk}blocks.{i}."
        q, k, v = linear(norm(x, w, at + "norm1", 1e-6), w, at + "attn.qkv").chunk(3, -1)
        x = x + linear(attention(q, k, v, heads), w, at + "attn.proj")
        x = x + linear(gelu(linear(norm(x, w, at + "norm2", 1e-6), w, at + "mlp.fc1")), w, at + "mlp.fc2")
    return F.normalize(norm(x[:, 0], w, trunk + "norm", 1e-6) @ w["visual.head.proj.weight"].T, dim=-1), alphas


def kl(alpha: Tensor) -> Tensor:
    """KL(Gamma(α, 1) ‖ Gamma(1, 1)), the mean of all values, by torch's own distributions."""
    gamma = torch.distributions.Gamma
    one = torch.ones_like(alpha)
    return torch.distributions.kl_divergence(gamma(alpha, one), gamma(one, one)).mean()
