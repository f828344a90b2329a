"""The interface of a frozen vision-language model, as all other parts of the package see it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from biomedcoop.data.images.crops import Resize
from biomedcoop.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from biomedcoop.backbones.tokenizer import Tokenizer

Drop = Callable[["Tensor"], "Tensor"]
"""Dropout that draws from its own generator: activations [B, ...] -> the same with some set to zero and the others scaled up."""


class VocabularyToken(NamedTuple):
    """An entry of a text tower's vocabulary.

    Attributes:
        id: number of the token.
        text: its letters; the continuation of a word keeps the "##" of WordPiece.
        whole: True for a whole word or sign, False for a piece of longer words.
    """

    id: int
    text: str
    whole: bool


class Backbone(ABC):
    """A frozen image tower and text tower with a joint space of width E.

    Attributes:
        name: the name that loads it ("mini", "biomedclip") or the folder's name.
        fingerprint: hash of the tensors in use, the architecture, the preprocessing and the tokenizer; hex.
        image_size: side S of the square input, px.
        resize: how an image becomes that square; see :data:`biomedcoop.data.images.crops.Resize`.
        mean, std: per-channel normalisation of pixels in [0, 1].
        context_length: largest number of tokens of a text that the text tower reads.
        embed_dim: width E of the joint space.
        token_dim: width D of a token embedding (and so of a learned context vector).
        logit_scale: factor s of the cosine similarities (the exponential is already taken).
        has_text_tower: False for an image tower alone: what takes or gives texts raises a UserError.
        device: where the towers run.
        dtype: precision of the text tower, and of the gradients that pass through it.
        precision: precision of the image tower; see :mod:`biomedcoop.backbones.precision`.
        precisions: those that keep the features of the image tower; others are refused.
        images_per_pass: most images of one pass of the image tower on a CPU.
        tower_kind: kind of the image tower: "vit", "resnet" or "efficientnet-lite", or timm's name of a model that timm computes.
        registers: number of the image tower's tokens that, like a class token, have no place in the image.
        map_layer: name of a late layer with a spatial map that the features depend on, for ``image_activations``; empty if there is
            none.
        tokenizer: of the text tower.
        image_tower: normalised pixels [B, 3, S, S] -> raw features [B, E].
        towers: both towers; the names of the image tower's tensors begin with "visual.".
        frozen: the backbone that this one was made from by training; None for one that nothing has changed.
    """

    name: str
    fingerprint: str
    image_size: int
    resize: Resize = "shortest"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    context_length: int
    embed_dim: int
    token_dim: int
    logit_scale: float
    has_text_tower: bool = True
    device: torch.device
    dtype: torch.dtype
    precision: str = "float32"
    precisions: tuple[str, ...] = ("float32", "bfloat16", "int8")
    images_per_pass: int = 16
    registers: int = 0
    tower_kind: str
    map_layer: str
    tokenizer: Tokenizer
    image_tower: nn.Module
    towers: nn.Module
    frozen: Backbone | None = None

    def __repr__(self) -> str:
        facts = [f"{self.image_size} px", f"embed_dim={self.embed_dim}", f"device='{self.device}'"]
        facts += [f"precision={self.precision!r}", f"fingerprint={self.fingerprint[:8]!r}"]
        return f"{type(self).__name__}({self.name!r}, {', '.join(facts)})"

    @property
    def original(self) -> Backbone:
        """The backbone as it was loaded, before a training changed its towers."""
        return self if self.frozen is None else self.frozen

    @property
    def text_macs_per_token(self) -> int:
        """Multiply-adds (MACs) of the text tower for each token: the number of weights in its matrices, without embeddings."""
        named = self.towers.named_parameters()
        return sum(
            p.numel() for name, p in named if p.dim() == 2 and not name.startswith("visual.") and "embed" not in name
        )

    @property
    def learning_dtype(self) -> torch.dtype:
        """Precision of learned tensors and of losses: at least float32, whatever the precision of the frozen towers."""
        return torch.promote_types(self.dtype, torch.float32)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Normalised pixels [B, 3, S, S] -> raw (not unit-norm) features [B, E]."""
        with exact_convolutions(self.device):
            return self.image_tower(pixels)  # type: ignore[no-any-return]

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Texts -> token ids int64 [B, L], padded with 0 to the longest of the call."""
        return self.tokenizer(texts)

    def mask(self, ids: Tensor) -> Tensor:
        """Token ids [B, L] -> bool [B, L], True where a token is real; by default token 0 is padding."""
        return ids != 0

    def pooled_token(self, mask: Tensor) -> Tensor:
        """Mask [B, L] -> position int64 [B] of the token that stands for the whole text; by default the first, CLS."""
        return torch.zeros(len(mask), dtype=torch.int64, device=mask.device)

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Number of tokens of each text before it is cut to the context length."""
        return [self.tokenizer.count(text) for text in texts]

    def vocabulary(self) -> list[VocabularyToken]:
        """All tokens that stand for text, by number; special, unused and unreadable ones are left out."""
        return self.tokenizer.vocabulary()

    @abstractmethod
    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Token ids [B, L] -> word embeddings [B, L, D], without positions."""

    @abstractmethod
    def encode_text_embeddings(self, embeddings: Tensor, mask: Tensor, drop: Drop | None = None) -> Tensor:
        """Word embeddings [B, L, D] and mask [B, L] (True = real token) -> raw features [B, E]; differentiable.

        Args:
            drop: applied at the places where the architecture has dropout in training.

        Raises:
            UserError: ``drop`` is given and the architecture has no dropout.
        """

    @abstractmethod
    def image_activations(self, pixels: Tensor, layer: str) -> tuple[Tensor, Tensor]:
        """Raw features [B, E] and the output of the named layer of the image tower, both in one autograd graph."""

    @abstractmethod
    def attention_maps(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Raw features [B, E] and the attention probabilities of each block [B, H, T, T]; one autograd graph if gradients are on.

        The features come from the first token, or from an attention pooling head, whose probabilities [B, H, 1, T] stand last.

        Raises:
            UserError: the image tower has no attention between places of the image.
        """

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Texts -> raw features [B, E]."""
        ids = self.tokenize(texts).to(self.device)
        return self.encode_text_embeddings(self.embed_tokens(ids), self.mask(ids))

    def normalize(self, crops: npt.NDArray[np.uint8]) -> Tensor:
        """uint8 crops [B, S, S, 3] -> normalised pixels [B, 3, S, S], as the image tower takes them."""
        x = self._moved(torch.from_numpy(crops)).permute(0, 3, 1, 2)
        x = x.to(torch.float32, memory_format=torch.contiguous_format).div_(255.0)
        mean, std = (self._moved(torch.tensor(values))[:, None, None] for values in (self.mean, self.std))
        return x.sub_(mean).div_(std).to(next(self.image_tower.parameters()).dtype)

    def _moved(self, tensor: Tensor) -> Tensor:
        """A tensor on this backbone's device; the copy does not wait for work that a GPU has not finished."""
        return (tensor.pin_memory() if self.device.type == "cuda" else tensor).to(self.device, non_blocking=True)


@contextmanager
def exact_convolutions(device: torch.device) -> Iterator[None]:
    """Convolutions of float32 in float32: on an NVIDIA GPU, torch's default rounds their inputs to the ten bits of TF32."""
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
