"""Tiny CLIPs with random weights, written as folders in open_clip layout: a ViT and a ResNet, each with a text transformer.

Run as a script where ``transformers`` is installed (it is no dependency of this package), it renews ``clip_golden.json``: token ids
and features of the tiny ViT that ``CLIPTokenizerFast`` and ``CLIPModel`` compute. The file was made with transformers 5.24.0.

    PYTHONPATH=tests python tests/backbones/tiny_clip.py
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import pre_tokenizers

GOLDEN = Path(__file__).parent / "clip_golden.json"
START, END = "<|startoftext|>", "<|endoftext|>"
EMBED, CONTEXT, TEXT_WIDTH, TEXT_HEADS, TEXT_LAYERS = 48, 77, 40, 4, 2
SCALE = math.log(20)

State = dict[str, torch.Tensor]
Normal = Callable[..., torch.Tensor]

WORDS = (
    *("a", "photo", "of", "the", "an", "image", "scan", "showing", "with", "and", "in", "no", "blue", "green", "red"),
    *("cyst", "tumor", "stone", "normal", "kidney", "benign", "malignant", "mass", "lesion"),
)

TEXTS = [
    "a photo of a blue cyst.",
    "A  Photo of\tthe\n\nRED stone",
    "",
    " ",
    "!",
    "!!! a!b ?!",
    "naïve café, ménière",
    "cafe\u0301",
    "it's the cyst's mass; I'LL, they've, we'd, don't ''s 's",
    "12.5% of 300 (no. 4) 2024-01-02",
    "unheardofword_with_underscores--and—dashes",
    "İstanbul straße ΑΣ ﬁ 漢字 🙂\u200d🙂",
    "a\u00a0photo\u3000of\u2009a",
    "<|endoftext|",
    "a kidney " * 100,
]
"""Odd in case, white space, having no words, token 0 inside a word, accents, endings, digits, scripts, or length."""


def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Ids and merges in CLIP's order: bytes, bytes at a word's end, what words are merged of, start and end."""
    signs = sorted(pre_tokenizers.ByteLevel.alphabet(), key=ord)
    assert signs[0] == "!"
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        for left, right in merges:
            while True:
                at = next((i for i, pair in enumerate(itertools.pairwise(pieces)) if pair == (left, right)), None)
                if at is None:
                    break
                pieces[at : at + 2] = [left + right]
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces[:2] = [pieces[0] + pieces[1]]
    tokens = [*signs, *(f"{sign}</w>" for sign in signs), *(left + right for left, right in merges), START, END]
    return {token: number for number, token in enumerate(tokens)}, merges


def write_tokenizer(folder: Path) -> None:
    """``vocab.json`` and ``merges.txt`` as OpenAI's are published."""
    ids, merges = vocabulary()
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def normal(seed: int) -> Normal:
    """Random tensors; the legacy generator, because numpy promises that its numbers never change."""
    generator = np.random.RandomState(seed)

    def draw(*shape: int, std: float, mean: float = 0.0) -> torch.Tensor:
        return torch.from_numpy(mean + std * generator.standard_normal(shape)).to(torch.float32)

    return draw


def norm(draw: Normal, name: str, width: int) -> State:
    return {f"{name}.weight": draw(width, std=0.1, mean=1.0), f"{name}.bias": draw(width, std=0.1)}


def linear(draw: Normal, name: str, outputs: int, inputs: int, gain: float = 1.0) -> State:
    return {
        f"{name}.weight": draw(outputs, inputs, std=gain * inputs**-0.5),
        f"{name}.bias": draw(outputs, std=0.1),
    }


def transformer(draw: Normal, prefix: str, width: int, layers: int) -> State:
    state: State = {}
    for n in range(layers):
        block = f"{prefix}transformer.resblocks.{n}."
        projection = linear(draw, "in_proj", 3 * width, width, gain=1.5)
        state |= {block + "attn." + key.replace(".", "_"): value for key, value in projection.items()}
        state |= linear(draw, block + "attn.out_proj", width, width)
        state |= linear(draw, block + "mlp.c_fc", 2 * width, width) | linear(
            draw, block + "mlp.c_proj", width, 2 * width
        )
        state |= norm(draw, block + "ln_1", width) | norm(draw, block + "ln_2", width)
    return state


def text_state(draw: Normal, width: int = TEXT_WIDTH) -> State:
    return {
        "token_embedding.weight": draw(len(vocabulary()[0]), width, std=0.1),
        "positional_embedding": draw(CONTEXT, width, std=0.03),
        **transformer(draw, "", width, TEXT_LAYERS),
        **norm(draw, "ln_final", width),
        "text_projection": draw(width, EMBED, std=width**-0.5),
        "logit_scale": torch.tensor(SCALE),
    }


def vit_state(width: int = 64, layers: int = 2, patch: int = 8, size: int = 32, text_width: int = TEXT_WIDTH) -> State:
    draw = normal(1)
    return {
        "visual.conv1.weight": draw(width, 3, patch, patch, std=2 * (3 * patch**2) ** -0.5),
        "visual.class_embedding": draw(width, std=0.3),
        "visual.positional_embedding": draw((size // patch) ** 2 + 1, width, std=0.3),
        **norm(draw, "visual.ln_pre", width),
        **transformer(draw, "visual.", width, layers),
        **norm(draw, "visual.ln_post", width),
        "visual.proj": draw(width, EMBED, std=width**-0.5),
        **text_state(draw, text_width),
    }


def resnet_state(
    width: int = 8,
    layers: tuple[int, ...] = (1, 2, 1, 1),
    size: int = 32,
    embed: int = EMBED,
    images: int = 64,
    text_width: int = TEXT_WIDTH,
) -> State:
    """``images``: their number, for the statistics of batch normalisation."""
    draw = normal(2)
    state: State = {}

    def convolution(name: str, outputs: int, inputs: int, kernel: int) -> None:
        """A convolution and the batch normalisation of the same number behind it."""
        head, _, last = name.rpartition(".")
        after = f"{head}.{int(last) + 1}" if last.isdigit() else name.replace("conv", "bn")
        state[f"visual.{name}.weight"] = draw(outputs, inputs, kernel, kernel, std=(2 / (inputs * kernel**2)) ** 0.5)
        state.update(norm(draw, f"visual.{after}", outputs))
        state[f"visual.{after}.running_mean"] = torch.zeros(outputs)
        state[f"visual.{after}.running_var"] = torch.ones(outputs)
        state[f"visual.{after}.num_batches_tracked"] = torch.tensor(1000)

    convolution("conv1", width // 2, 3, 3)
    convolution("conv2", width // 2, width // 2, 3)
    convolution("conv3", width, width // 2, 3)
    inputs = width
    for stage, depth in enumerate(layers):
        planes = width * 2**stage
        for n in range(depth):
            block = f"layer{stage + 1}.{n}"
            convolution(f"{block}.conv1", planes, inputs, 1)
            convolution(f"{block}.conv2", planes, planes, 3)
            convolution(f"{block}.conv3", 4 * planes, planes, 1)
            if n == 0:
                convolution(f"{block}.downsample.0", 4 * planes, inputs, 1)
            inputs = 4 * planes
    state["visual.attnpool.positional_embedding"] = draw((size // 32) ** 2 + 1, inputs, std=inputs**-0.5)
    for part in "qkv":
        state |= linear(draw, f"visual.attnpool.{part}_proj", inputs, inputs)
    state |= linear(draw, "visual.attnpool.c_proj", embed, inputs) | text_state(draw, text_width)
    # statistics of images of many colours; with arbitrary ones every image would come out nearly the same
    colours = draw(images, 3, size, size, std=0.7) + draw(images, 3, 1, 1, std=1.0)
    resnet(state, colours, heads=inputs // 64, train=True)
    return state


def resnet(state: State, x: torch.Tensor, heads: int, train: bool = False) -> torch.Tensor:
    """OpenAI's ResNet written down a second time, straight from the names of its tensors: pixels -> features.

    Args:
        train: batch normalisation by the statistics of ``x``, which become the running ones.
    """

    def step(x: torch.Tensor, name: str, after: str, stride: int = 1) -> torch.Tensor:
        weight = state[f"visual.{name}.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, var, scale, shift = (
            state[f"visual.{after}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, scale, shift, training=train, momentum=1.0)

    for n, stride in ((1, 2), (2, 1), (3, 1)):
        x = step(x, f"conv{n}", f"bn{n}", stride).relu()
    x = F.avg_pool2d(x, 2)
    blocks = sorted({".".join(key.split(".")[1:3]) for key in state if key.startswith("visual.layer")})
    for block in blocks:
        pooled = block.endswith(".0") and not block.startswith("layer1")
        out = step(x, f"{block}.conv1", f"{block}.bn1").relu()
        out = step(out, f"{block}.conv2", f"{block}.bn2").relu()
        if pooled:
            x, out = F.avg_pool2d(x, 2), F.avg_pool2d(out, 2)
        if f"visual.{block}.downsample.0.weight" in state:
            x = step(x, f"{block}.downsample.0", f"{block}.downsample.1")
        x = (x + step(out, f"{block}.conv3", f"{block}.bn3")).relu()
    pool = {key.removeprefix("visual.attnpool."): value for key, value in state.items() if "attnpool" in key}
    x = x.flatten(2).permute(2, 0, 1)  # [positions, B, W]
    x = torch.cat([x.mean(0, keepdim=True), x]) + pool["positional_embedding"][:, None]
    out, _ = F.multi_head_attention_forward(
        *(x, x, x, x.shape[-1], heads),
        in_proj_weight=None,
        in_proj_bias=torch.cat([pool[f"{part}_proj.bias"] for part in "qkv"]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=pool["c_proj.weight"],
        out_proj_bias=pool["c_proj.bias"],
        training=False,
        need_weights=False,
        use_separate_proj_weight=True,
        q_proj_weight=pool["q_proj.weight"],
        k_proj_weight=pool["k_proj.weight"],
        v_proj_weight=pool["v_proj.weight"],
    )
    return out[0]


def config(vision: dict, quick_gelu: bool = True) -> dict:
    return {
        "model_cfg": {
            "embed_dim": EMBED,
            "quick_gelu": quick_gelu,
            "vision_cfg": vision,
            "text_cfg": {
                "context_length": CONTEXT,
                "vocab_size": len(vocabulary()[0]),
                "width": TEXT_WIDTH,
                "heads": TEXT_HEADS,
                "layers": TEXT_LAYERS,
                "mlp_ratio": 2.0,
            },
        },
        "preprocess_cfg": {
            "mean": [0.48145466, 0.4578275, 0.40821073],
            "std": [0.26862954, 0.26130258, 0.27577711],
        },
    }


VIT = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32, "mlp_ratio": 2.0}
RESNET = {"image_size": 32, "layers": [1, 2, 1, 1], "width": 8, "patch_size": None}


def write(folder: Path, description: dict, state: State) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(description))
    save_file(state, folder / "open_clip_model.safetensors")
    write_tokenizer(folder)
    return folder


def write_vit(folder: Path, quick_gelu: bool = True) -> Path:
    """A ViT with 17 tokens and two heads."""
    return write(folder, config(VIT, quick_gelu), vit_state())


def write_resnet(folder: Path) -> Path:
    """A ResNet whose last stage has one position and 256 channels."""
    return write(folder, config(RESNET), resnet_state())


def pixels() -> torch.Tensor:
    """Three images of noise."""
    return normal(3)(3, 3, 32, 32, std=1.0)


def renew_golden() -> None:
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizerFast

    from backbones.tiny_transformers_clip import config, transformers_state

    ids, merges = vocabulary()
    tokenizer = CLIPTokenizerFast(vocab=ids, merges=merges, model_max_length=CONTEXT)
    tokens = [tokenizer(text, truncation=True)["input_ids"] for text in TEXTS]
    renamed = transformers_state(vit_state())
    golden: dict = {"tokens": tokens}
    for kind in ("quick_gelu", "gelu"):
        model = CLIPModel(CLIPConfig(**config(kind))).eval()
        missing, unexpected = model.load_state_dict(renamed, strict=False)
        assert not unexpected
        assert all(key.endswith("position_ids") for key in missing)
        with torch.no_grad():
            seen = model.vision_model(pixel_values=pixels()).pooler_output
            read = [model.text_model(input_ids=torch.tensor([row])).pooler_output[0] for row in tokens]
            golden[kind] = {
                "image": model.visual_projection(seen).tolist(),
                "text": model.text_projection(torch.stack(read)).tolist(),
            }
    rounded = json.loads(json.dumps(golden), parse_float=lambda number: round(float(number), 7))
    GOLDEN.write_text(json.dumps(rounded, separators=(",", ":")).replace("]],", "]],\n").replace("],[", "],\n[") + "\n")


if __name__ == "__main__":
    renew_golden()
