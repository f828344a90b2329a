"""The two towers: how they begin, what they give while training, and how they are written to disk."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor
from torch.nn import functional as F

from biomedcoop.backbones.bert import BertConfig
from biomedcoop.backbones.open_clip import Towers
from biomedcoop.backbones.tokenizer import Tokenizer
from biomedcoop.backbones.vit import Attention, ViTConfig
from biomedcoop.errors import UserError
from biomedcoop.output import write_atomically
from pretraining.captions import sentences
from pretraining.views import MEAN, SIZE, STD

TEXT_WIDTH, TEXT_LAYERS, TEXT_HIDDEN, CONTEXT = 192, 3, 224, 64
SCALE_RANGE = (40.0, 100.0)  # left free, the scale falls to 12, too flat for a few prompts to be learned by later


@dataclass(frozen=True)
class Settings:
    """One run of pretraining; each is an option of ``train_mini.py``.

    Attributes:
        epochs: of as many steps as the pool has batches.
        patch: side of a patch in pixels; 96 must be a multiple.
        width, layers: of the image tower, 64 per head.
        embed: width of the space of both.
        init: "mimetic", or "plain" (normal weights, positions too).
        keep: share of patches that the image tower sees while training,
        whole: up to this share of the schedule; after it, every patch, as the test will.
        colour: strength of random changes of exposure and tint.
        drop_words: share of the tokens of the library's sentences that the text tower does not see while training. Templates
            are always whole: without its one telling word, a class name is that of another class.
        describe: weight of the image-descriptor loss.
        within: weight of the contrastive loss within the task.
        text_steps: steps that the text tower learns alone before the first epoch, all classes of the library at once.
        image_steps: steps that the image tower then learns alone, by the image-descriptor loss.
        library_classes: classes of the whole library whose captions meet each step.
        simulated: images per class that the package draws into the pool.
        average: step of the moving average of the weights.
        batch: images of a step, at least 2.
        lr, text_lr: highest learning rate of the image tower and of the text tower.
        seed: of everything that is drawn.
        limit: use only so many images of the pool (a quick check of the script); 0 for all.

    Raises:
        UserError: a value cannot be.
    """

    epochs: int = 28
    batch: int = 128
    patch: int = 12
    width: int = 192
    layers: int = 6
    embed: int = 512
    init: str = "mimetic"
    keep: float = 0.5
    whole: float = 0.85
    colour: float = 0.2
    drop_words: float = 0.0
    describe: float = 6.0
    within: float = 0.5
    text_steps: int = 250
    image_steps: int = 400
    library_classes: int = 16
    simulated: int = 400
    average: float = 0.005
    lr: float = 1e-3
    text_lr: float = 5e-4
    seed: int = 0
    limit: int = 0

    def __post_init__(self) -> None:
        def require(name: str, allowed: bool, what: str) -> None:
            if not allowed:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be {what}")

        require("patch", self.patch >= 1 and SIZE % self.patch == 0, f"a divisor of {SIZE}, an image's side in pixels")
        require("width", self.width >= 64 and self.width % 64 == 0, "a multiple of 64, the width of a head")
        require("init", self.init in ("mimetic", "plain"), "mimetic or plain")
        for name, low in (("epochs", 1), ("batch", 2), ("layers", 1), ("embed", 1), ("library_classes", 1)):
            require(name, getattr(self, name) >= low, f"at least {low}")
        for name in ("text_steps", "image_steps", "simulated", "colour", "describe", "within", "seed"):
            require(name, 0 <= getattr(self, name) <= 10**9, "between 0 and 10^9")
        for name in ("keep", "average", "lr", "text_lr"):
            require(name, 0 < getattr(self, name) <= 1, "above 0, at most 1")
        require("whole", 0 <= self.whole <= 1, "between 0 and 1")
        require("drop_words", 0 <= self.drop_words < 1, "at least 0, below 1")
        require("limit", self.limit == 0 or self.limit >= 50, "0 (all images) or at least 50")


def new_towers(settings: Settings, vocab_size: int) -> Towers:
    """Both towers, as they begin."""
    image = ViTConfig(SIZE, settings.patch, settings.width, settings.layers, settings.width // 64, 4 * settings.width)
    text = BertConfig(vocab_size, TEXT_WIDTH, TEXT_LAYERS, 3, 768, CONTEXT, 2)
    towers = Towers(image, text, TEXT_HIDDEN, settings.embed)
    for name, p in towers.named_parameters():
        if "embeddings" in name or name.endswith(("cls_token", "pos_embed")):
            if not name.endswith("LayerNorm.weight") and p.ndim >= 2:
                torch.nn.init.trunc_normal_(p, std=0.02)
        elif p.ndim >= 2:
            torch.nn.init.normal_(
                p, std=p[0].numel() ** -0.5
            )  # words a little apart from the start, or they stay together
        elif name.endswith("bias"):
            torch.nn.init.zeros_(p)
    with torch.no_grad():
        towers.logit_scale.fill_(math.log(SCALE_RANGE[0]))
        if settings.init == "mimetic":
            for block in towers.visual.trunk.blocks:
                mimic(block.attn)
            towers.visual.trunk.pos_embed[0, 1:] = 0.5 * waves(SIZE // settings.patch, settings.width)
    return towers


def mimic(attention: Attention) -> None:
    """Weights such as trained attention has (Trockman & Kolter 2023, arXiv 2305.09828): a patch first looks at its like,
    W_q W_k^T ~ 0.7 (Z + 1) per head, and value and output projection together take a little of it away, 0.4 (Z - 1)."""
    width = attention.proj.weight.shape[0]
    part = width // attention.heads
    query, key, value = attention.qkv.weight.view(3, width, width)  # [out, in] each
    for head in range(attention.heads):
        rows = slice(head * part, (head + 1) * part)
        u, s, v = torch.linalg.svd(0.7 * (torch.randn(width, width) * width**-0.5 + torch.eye(width)))
        query[rows], key[rows] = (u[:, :part] * s[:part].sqrt()).T, (v.T[:, :part] * s[:part].sqrt()).T
    u, s, v = torch.linalg.svd(0.4 * (torch.randn(width, width) * width**-0.5 - torch.eye(width)))
    value[:], attention.proj.weight[:] = s.sqrt()[:, None] * v, u * s.sqrt()


def waves(side: int, width: int) -> Tensor:
    """Sines and cosines of row and column, [side^2, width], a quarter of the width each (MoCo v3, Chen et al. 2021)."""
    angles = torch.arange(side)[:, None] * 10_000.0 ** -torch.linspace(0, 1, width // 4)
    rows, columns = angles[:, None].expand(-1, side, -1), angles[None].expand(side, -1, -1)
    return torch.cat([rows.sin(), rows.cos(), columns.sin(), columns.cos()], -1).reshape(side * side, width)


def attend(attention: Attention, x: Tensor) -> Tensor:
    """The attention of the package, product by product: on a CPU the fused one's backward pass is four times slower in
    bfloat16 at these lengths."""
    q, k, v = attention.split_heads(x)
    weights = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(-1)
    return attention.proj((weights.to(v.dtype) @ v).transpose(1, 2).flatten(2))


def image_features(towers: Towers, pixels: Tensor, keep: float = 1.0, rng: torch.Generator | None = None) -> Tensor:
    """Unit-norm image features [B, E], float32, of a random share ``keep`` of the patches."""
    trunk = towers.visual.trunk
    patches = trunk.patch_embed(pixels) + trunk.pos_embed[:, 1:]
    if keep < 1:
        b, t, w = patches.shape
        order = torch.rand(b, t, generator=rng).argsort(1)[:, : round(keep * t)]
        patches = patches.gather(1, order[:, :, None].expand(-1, -1, w))
    x = torch.cat([(trunk.cls_token + trunk.pos_embed[:, :1]).expand(len(patches), -1, -1), patches], 1)
    for block in trunk.blocks:
        x = x + attend(block.attn, block.norm1(x))
        x = x + block.mlp(block.norm2(x))
    return F.normalize(towers.visual.head.proj(trunk.norm(x[:, 0])).float(), dim=-1)


def text_features(
    towers: Towers, tokenizer: Tokenizer, texts: list[str], drop: float = 0.0, rng: torch.Generator | None = None
) -> Tensor:
    """Unit-norm text features [n, E], float32; of sentences a random share ``drop`` of the tokens is hidden."""
    ids = tokenizer(texts)
    mask = ids != 0
    if drop:
        hidden = torch.rand(ids.shape, generator=rng) < drop
        hidden[[text not in sentences() for text in texts]] = False
        hidden[:, 0] = False  # [CLS] carries the feature
        mask &= ~hidden
    embeddings = towers.text.transformer.embeddings.word_embeddings(ids)
    return F.normalize(towers.text(embeddings, mask).float(), dim=-1)


def export(towers: Towers, weights: dict[str, Tensor], vocabulary: bytes, folder: Path) -> None:
    """Write ``weights`` of towers of this shape in open_clip layout, half precision.

    open_clip gives the text projection as many hidden units as the mean of both its widths: units of weight 0 fill it up,
    which changes no feature.
    """
    folder.mkdir(parents=True, exist_ok=True)
    image, text, embed = (
        towers.visual.trunk.config,
        towers.text.transformer.config,
        towers.visual.head.proj.out_features,
    )
    more = (text.width + embed) // 2 - TEXT_HIDDEN
    tensors = {k: v.half().contiguous() for k, v in weights.items()}
    if more > 0:
        tensors["text.proj.0.weight"] = F.pad(tensors["text.proj.0.weight"], (0, 0, 0, more))
        tensors["text.proj.2.weight"] = F.pad(tensors["text.proj.2.weight"], (0, more))
    config = {
        "model_cfg": {
            "embed_dim": embed,
            "vision_cfg": {
                "timm_model_name": "vit_tiny_patch16_224",
                "timm_model_pretrained": False,
                "timm_pool": "",
                "timm_proj": "linear",
                "image_size": SIZE,
                "timm_model_kwargs": {
                    "img_size": SIZE,
                    "patch_size": image.patch_size,
                    "embed_dim": image.width,
                    "depth": image.layers,
                    "num_heads": image.heads,
                },
            },
            "text_cfg": {
                "hf_model_name": ".",
                "hf_tokenizer_name": ".",
                "hf_proj_type": "mlp",
                "hf_pooler_type": "cls_last_hidden_state_pooler",
                "context_length": CONTEXT,
            },
        },
        "preprocess_cfg": {"mean": MEAN.flatten().tolist(), "std": STD.flatten().tolist()},
    }
    bert = {
        "model_type": "bert",
        "vocab_size": text.vocab_size,
        "hidden_size": text.width,
        "num_hidden_layers": text.layers,
        "num_attention_heads": text.heads,
        "intermediate_size": text.mlp_width,
        "hidden_act": "gelu",
        "max_position_embeddings": CONTEXT,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
    }
    write_atomically(folder / "open_clip_model.safetensors", to_bytes(tensors))
    write_atomically(folder / "tokenizer.json", vocabulary)
    for name, content in (("open_clip_config.json", config), ("config.json", bert)):
        write_atomically(folder / name, (json.dumps(content, indent=1) + "\n").encode())
