"""Backbones in the open_clip directory layout with a BERT text tower and a ViT image tower.

This is how BiomedCLIP is published (Zhang et al. 2023, arXiv 2303.00915) and how the shipped ``mini`` is stored:
``open_clip_config.json``, ``open_clip_model.safetensors`` or ``open_clip_pytorch_model.bin``, and the tokenizer's files.
Sizes are read off the tensors themselves, so a checkpoint cannot disagree with its description.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.bert import Bert, BertConfig
from biomedcoop.backbones.tokenizer import Tokenizer
from biomedcoop.backbones.vit import Block, VisionTransformer, ViTConfig
from biomedcoop.errors import UserError

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


class ImageHead(nn.Module):
    def __init__(self, width: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, embed_dim, bias=False)


class ImageTower(nn.Module):
    def __init__(self, config: ViTConfig, embed_dim: int) -> None:
        super().__init__()
        self.trunk = VisionTransformer(config)
        self.head = ImageHead(config.width, embed_dim)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head.proj(self.trunk(pixels))  # type: ignore[no-any-return]


class TextTower(nn.Module):
    def __init__(self, config: BertConfig, hidden: int, embed_dim: int) -> None:
        super().__init__()
        self.transformer = Bert(config)
        self.proj = nn.Sequential(
            nn.Linear(config.width, hidden, bias=False), nn.GELU(), nn.Linear(hidden, embed_dim, bias=False)
        )

    def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        return self.proj(self.transformer(embeddings, mask))  # type: ignore[no-any-return]


class Towers(nn.Module):
    """Both towers and the scale, with the tensor names of the published checkpoint."""

    def __init__(self, image: ViTConfig, text: BertConfig, text_hidden: int, embed_dim: int) -> None:
        super().__init__()
        self.visual = ImageTower(image, embed_dim)
        self.text = TextTower(text, text_hidden, embed_dim)
        self.logit_scale = nn.Parameter(torch.zeros(()))


class OpenClipBackbone(Backbone):
    """A loaded open_clip directory. Use :func:`load_open_clip`."""

    def __init__(self, name: str, towers: Towers, tokenizer: Tokenizer, preprocess: Mapping[str, Any], digest: str):
        first = next(towers.parameters())
        self.name, self.fingerprint = name, digest
        self.towers, self.tokenizer = towers, tokenizer
        self.device, self.dtype = first.device, first.dtype
        self.image_size = towers.visual.trunk.config.image_size
        self.mean, self.std = tuple(preprocess["mean"]), tuple(preprocess["std"])
        self.context_length = tokenizer.context_length
        self.embed_dim = towers.visual.head.proj.out_features
        self.token_dim = towers.text.transformer.config.width
        self.logit_scale = float(towers.logit_scale.float().exp())

    def encode_image(self, pixels: Tensor) -> Tensor:
        return self.towers.visual(pixels)  # type: ignore[no-any-return]

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        return self.tokenizer(texts)

    def embed_tokens(self, ids: Tensor) -> Tensor:
        return self.towers.text.transformer.embeddings.word_embeddings(ids)  # type: ignore[no-any-return]

    def encode_text_embeddings(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        return self.towers.text(embeddings, mask)  # type: ignore[no-any-return]

    def image_activations(self, pixels: Tensor, layer: str) -> tuple[Tensor, Tensor]:
        trunk = self.towers.visual.trunk
        layers = {name: module for name, module in trunk.named_modules() if name}
        if layer not in layers:
            raise UserError(
                f"{self.name} has no image layer '{layer}'; for instance 'blocks.{len(trunk.blocks) - 1}.norm1'"
            )
        kept: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            # weights are frozen, so the graph has to start here
            kept.append(output if output.requires_grad else output.requires_grad_())
            return kept[-1]

        handle = layers[layer].register_forward_hook(keep)
        try:
            with torch.enable_grad():
                return self.encode_image(pixels), kept[-1]
        finally:
            handle.remove()

    def attention_maps(self, pixels: Tensor) -> Tensor:
        trunk = self.towers.visual.trunk
        maps = []
        with torch.no_grad():
            x = trunk.embed(pixels)
            for block in trunk.blocks:
                assert isinstance(block, Block)
                maps.append(block.attention_weights(x))
                x = block(x)
        return torch.stack(maps, dim=1)


def load_open_clip(
    folder: Path, *, name: str | None = None, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> OpenClipBackbone:
    """Load a directory in open_clip layout.

    Args:
        folder: holds the configuration, the weights and the tokenizer.
        name: how the backbone calls itself; the folder's name by default.
        device, dtype: where and in what precision the towers run.

    Raises:
        UserError: a file is missing or unreadable, tensors are missing, unexpected, misshapen or not finite.
    """
    config = read_config(folder)
    state = read_weights(folder)
    state = {key: value for key, value in state.items() if not key.endswith("position_ids")}
    towers, preprocess = build_towers(config, state, folder)
    tokenizer = Tokenizer.from_directory(folder, int(config["model_cfg"]["text_cfg"].get("context_length", 256)))
    rows, words = towers.text.transformer.config.vocab_size, tokenizer.rust.get_vocab_size()
    if words > rows:
        raise UserError(
            f"{folder}: the tokenizer knows {words} tokens, the weights {rows}; the files are of two models"
        )
    digest = fingerprint(state, preprocess, tokenizer)
    towers.load_state_dict(state, assign=True)
    towers.requires_grad_(False).eval().to(device=device, dtype=dtype)
    return OpenClipBackbone(name or folder.name, towers, tokenizer, preprocess, digest)


def read_config(folder: Path) -> dict[str, Any]:
    """``open_clip_config.json``, with the BERT ``config.json`` (if there is one) under ``bert``."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        config["model_cfg"]["vision_cfg"], config["model_cfg"]["text_cfg"]
        bert = folder / "config.json"
        config["bert"] = json.loads(bert.read_text(encoding="utf-8")) if bert.is_file() else {}
    except FileNotFoundError as error:
        raise UserError(f"{folder} is no backbone: {CONFIG} is missing; give a folder in open_clip layout") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not an open_clip configuration ({error}); fetch it again") from error
    if (
        "timm_model_name" not in config["model_cfg"]["vision_cfg"]
        or "hf_model_name" not in config["model_cfg"]["text_cfg"]
    ):
        raise UserError(f"{path}: only a timm ViT with a BERT text tower (BiomedCLIP's kind) can be loaded this way")
    return dict(config)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The checkpoint's tensors, memory-mapped, read without unpickling objects."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for path in (folder / n for n in WEIGHTS):
        if not path.is_file():
            continue
        try:
            if path.suffix == ".safetensors":
                return load_file(path)
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            state = state.get("state_dict", state)
            return {key.removeprefix("module."): value for key, value in state.items()}
        # torch reports a damaged archive by any of these
        except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, AttributeError, KeyError) as error:
            raise UserError(
                f"{path}: the weights cannot be read ({first_line(error)}); fetch the file again"
            ) from error
        except Exception as error:
            if type(error).__name__ != "UnpicklingError":
                raise
            raise UserError(
                f"{path}: refused, it holds more than tensors or is damaged; convert it to {WEIGHTS[0]}"
            ) from error
    raise UserError(f"{folder}: neither {WEIGHTS[0]} nor {WEIGHTS[1]} is there; copy the weights into it")


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def build_towers(
    config: Mapping[str, Any], state: Mapping[str, Tensor], folder: Path
) -> tuple[Towers, dict[str, list[float]]]:
    """Towers on the meta device whose sizes fit ``state``, after checking every tensor of it."""

    def shape(key: str) -> torch.Size:
        if key not in state:
            raise UserError(f"{folder}: the checkpoint lacks '{key}' (and maybe more); fetch the weights again")
        return state[key].shape

    def depth(pattern: str) -> int:
        found = [int(m[1]) for m in map(re.compile(pattern).match, state) if m]
        return max(found, default=-1) + 1

    vision, text = config["model_cfg"]["vision_cfg"], config["model_cfg"]["text_cfg"]
    kwargs, bert = vision.get("timm_model_kwargs") or {}, config["bert"]
    trunk, embeddings = "visual.trunk.", "text.transformer.embeddings."
    width, patch = shape(trunk + "patch_embed.proj.weight")[0], shape(trunk + "patch_embed.proj.weight")[-1]
    image = ViTConfig(
        image_size=round((shape(trunk + "pos_embed")[1] - 1) ** 0.5) * patch,
        patch_size=patch,
        width=width,
        layers=depth(r"visual\.trunk\.blocks\.(\d+)\."),
        heads=int(kwargs.get("num_heads", max(1, width // 64))),
        mlp_width=shape(trunk + "blocks.0.mlp.fc1.weight")[0],
    )
    text_width = shape(embeddings + "word_embeddings.weight")[1]
    language = BertConfig(
        vocab_size=shape(embeddings + "word_embeddings.weight")[0],
        width=text_width,
        layers=depth(r"text\.transformer\.encoder\.layer\.(\d+)\."),
        heads=int(bert.get("num_attention_heads", max(1, text_width // 64))),
        mlp_width=shape("text.transformer.encoder.layer.0.intermediate.dense.weight")[0],
        positions=shape(embeddings + "position_embeddings.weight")[0],
        token_types=shape(embeddings + "token_type_embeddings.weight")[0],
        norm_eps=float(bert.get("layer_norm_eps", 1e-12)),
    )
    with torch.device("meta"):
        towers = Towers(image, language, shape("text.proj.0.weight")[0], shape("visual.head.proj.weight")[0])
    check_tensors(state, {k: v.shape for k, v in towers.state_dict().items()}, folder)
    context = int(text.get("context_length", 256))
    if context > language.positions:
        raise UserError(f"{folder}: context_length {context} exceeds the {language.positions} positions of the weights")
    if int(vision.get("image_size", image.image_size)) != image.image_size:
        raise UserError(f"{folder}: image_size {vision['image_size']} in {CONFIG}, {image.image_size} in the weights")
    preprocess = config.get("preprocess_cfg", {})
    if (
        preprocess.get("interpolation", "bicubic") != "bicubic"
        or preprocess.get("resize_mode", "shortest") != "shortest"
    ):
        raise UserError(f"{folder}: {CONFIG} asks for a preprocessing other than bicubic, shortest edge, centre crop")
    # OpenAI's constants are open_clip's default and the values of BiomedCLIP
    mean = list(preprocess.get("mean", (0.48145466, 0.4578275, 0.40821073)))
    std = list(preprocess.get("std", (0.26862954, 0.26130258, 0.27577711)))
    return towers, {"mean": mean, "std": std}


def check_tensors(state: Mapping[str, Tensor], expected: Mapping[str, torch.Size], folder: Path) -> None:
    """Refuse missing, unexpected, misshapen and non-finite tensors, by name."""
    for what, keys in (("lacks", expected.keys() - state.keys()), ("has unexpected", state.keys() - expected.keys())):
        if keys:
            names = ", ".join(f"'{k}'" for k in sorted(keys)[:3]) + (
                f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            )
            raise UserError(f"{folder}: the checkpoint {what} {names}; it is damaged or of another architecture")
    for key, want in expected.items():
        if state[key].shape != want:
            raise UserError(f"{folder}: '{key}' has shape {list(state[key].shape)}, expected {list(want)}")
        if not bool(torch.isfinite(state[key]).all()):
            raise UserError(f"{folder}: '{key}' holds values that are not finite; fetch the weights again")


def fingerprint(state: Mapping[str, Tensor], preprocess: Mapping[str, Any], tokenizer: Tokenizer) -> str:
    """Hash of the tensors as stored, the preprocessing and the tokenizer: 32 hex digits, the same for every file format."""
    digest = hashlib.sha256(json.dumps(preprocess, sort_keys=True).encode() + tokenizer.signature().encode())
    for key in sorted(state):
        value = state[key].detach().contiguous()
        digest.update(f"{key} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]
