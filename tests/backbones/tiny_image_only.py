"""ViTs and ResNets without a text tower with random weights, written as folders of transformers (DINOv2, ViT) and timm; tiny, or of
any size.

``forward`` computes their features straight from the tensors and names of the folder, without the package's models.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from backbones.tiny_clip import State, linear, norm, normal

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def write_dinov2(
    folder: Path,
    *,
    width: int = 48,
    layers: int = 2,
    heads: int = 3,
    patch: int = 7,
    stored: int = 70,
    size: int = 28,
    registers: int = 0,
) -> Path:
    """A DINOv2 of transformers with positions for ``stored`` px and inputs of ``size`` px."""
    draw = normal(1)
    state = {
        **embeddings(draw, "embeddings.", width, patch, stored),
        "embeddings.mask_token": draw(1, width, std=0.3),
        **norm(draw, "layernorm", width),
    }
    for n in range(layers):
        block = f"encoder.layer.{n}."
        state |= attention(draw, block, width)
        state |= norm(draw, f"{block}norm1", width) | norm(draw, f"{block}norm2", width)
        state |= linear(draw, f"{block}mlp.fc1", 4 * width, width) | linear(draw, f"{block}mlp.fc2", width, 4 * width)
        state |= {f"{block}layer_scale{k}.lambda1": draw(width, std=0.1, mean=0.5) for k in (1, 2)}
    if registers:
        state["embeddings.register_tokens"] = draw(1, registers, width, std=0.3)
    kind = "dinov2_with_registers" if registers else "dinov2"
    config = {
        "model_type": kind,
        "num_register_tokens": registers,
        "architectures": ["Dinov2Model"],
        "image_size": stored,
        "patch_size": patch,
    }
    config |= {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "mlp_ratio": 4}
    config |= {"hidden_act": "gelu", "layer_norm_eps": 1e-6, "qkv_bias": True, "use_swiglu_ffn": False}
    crop = {"crop_size": {"height": size, "width": size}, "do_center_crop": True, "size": {"shortest_edge": size + 4}}
    return write(folder, config, state, crop)


def write_vit(folder: Path, *, pooler: bool = True, head: bool = False) -> Path:
    """A ViT of transformers with or without a pooler, or with a classifier on top."""
    draw, width = normal(2), 48
    state = {**embeddings(draw, "embeddings.", width, 8, 32), **norm(draw, "layernorm", width)}
    state |= linear(draw, "pooler.dense", width, width) if pooler else {}
    for n in range(2):
        block = f"encoder.layer.{n}."
        state |= attention(draw, block, width)
        state |= norm(draw, f"{block}layernorm_before", width) | norm(draw, f"{block}layernorm_after", width)
        state |= linear(draw, f"{block}intermediate.dense", 96, width)
        state |= linear(draw, f"{block}output.dense", width, 96)
    if head:
        state = {f"vit.{key}": value for key, value in state.items()} | linear(draw, "classifier", 5, width)
    config = {"model_type": "vit", "hidden_size": width, "num_hidden_layers": 2, "num_attention_heads": 4}
    config |= {"intermediate_size": 96, "image_size": 32, "patch_size": 8, "hidden_act": "gelu", "qkv_bias": True}
    return write(folder, {**config, "layer_norm_eps": 1e-12}, state, {"size": {"height": 32, "width": 32}})


def write_timm(folder: Path, *, layer_scale: bool = True) -> Path:
    """A ViT of timm with a classifier."""
    draw, width = normal(3), 48
    state = {"cls_token": draw(1, 1, width, std=0.3), "pos_embed": draw(1, 17, width, std=0.3)}
    state |= {"patch_embed.proj.weight": draw(width, 3, 8, 8, std=0.1), "patch_embed.proj.bias": draw(width, std=0.1)}
    for n in range(2):
        block = f"blocks.{n}."
        state |= linear(draw, f"{block}attn.qkv", 3 * width, width, gain=1.5)
        state |= linear(draw, f"{block}attn.proj", width, width)
        state |= norm(draw, f"{block}norm1", width) | norm(draw, f"{block}norm2", width)
        state |= linear(draw, f"{block}mlp.fc1", 96, width) | linear(draw, f"{block}mlp.fc2", width, 96)
        if layer_scale:
            state |= {f"{block}ls{k}.gamma": draw(width, std=0.1, mean=0.5) for k in (1, 2)}
    state |= norm(draw, "norm", width) | linear(draw, "head", 5, width)
    made_for = {"input_size": [3, 32, 32], "mean": MEAN, "std": STD, "interpolation": "bicubic", "crop_pct": 0.9}
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": width, "depth": 2, "num_heads": 4, "num_classes": 5}
    config = {"architecture": "vit_small_patch8_32", "num_classes": 5, "num_features": width, "global_pool": "token"}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**config, "model_args": arguments, "pretrained_cfg": made_for}))
    save_file(state, folder / "model.safetensors")
    return folder


def resnet_state(
    blocks: tuple[int, ...] = (1, 2, 1, 1), width: int = 8, wide: int = 1, bottleneck: bool = True, size: int = 64
) -> State:
    """A ResNet by the names of timm and torchvision, with a classifier; ``wide`` widens the inside of its bottlenecks."""
    draw = normal(4)
    state: State = {}

    def convolution(name: str, outputs: int, inputs: int, kernel: int, after: str) -> None:
        state[f"{name}.weight"] = draw(outputs, inputs, kernel, kernel, std=(2 / (inputs * kernel**2)) ** 0.5)
        state.update(norm(draw, after, outputs))
        state[f"{after}.running_mean"], state[f"{after}.running_var"] = torch.zeros(outputs), torch.ones(outputs)
        state[f"{after}.num_batches_tracked"] = torch.tensor(7)

    convolution("conv1", width, 3, 7, "bn1")
    inputs = width
    for stage, count in enumerate(blocks):
        planes = width * 2**stage
        inner, outer = (wide * planes, 4 * planes) if bottleneck else (planes, planes)
        for n in range(count):
            block = f"layer{stage + 1}.{n}"
            shapes = [(inner, inputs, 1), (inner, inner, 3), (outer, inner, 1)]
            shapes = shapes if bottleneck else [(inner, inputs, 3), (outer, inner, 3)]
            for number, (outputs, ins, kernel) in enumerate(shapes, 1):
                convolution(f"{block}.conv{number}", outputs, ins, kernel, f"{block}.bn{number}")
            if n == 0 and (stage > 0 or inputs != outer):
                convolution(f"{block}.downsample.0", outer, inputs, 1, f"{block}.downsample.1")
            inputs = outer
    # statistics of images of many colours; with arbitrary ones every image would come out nearly the same
    resnet(state, draw(8, 3, size, size, std=0.7) + draw(8, 3, 1, 1, std=1.0), train=True)
    return state | linear(draw, "fc", 5, inputs)


def resnet(state: State, x: torch.Tensor, train: bool = False) -> torch.Tensor:
    """Features of a ResNet written down a second time: normalised pixels [B, 3, S, S] -> [B, W].

    Args:
        train: first put the statistics of ``x`` into ``state``.
    """

    def normed(x: torch.Tensor, name: str) -> torch.Tensor:
        if train:
            state[f"{name}.running_mean"], state[f"{name}.running_var"] = x.mean((0, 2, 3)), x.var((0, 2, 3))
        mean, var, weight, bias = (
            state[f"{name}.{kind}"][:, None, None] for kind in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    x = normed(F.conv2d(x, state["conv1.weight"], stride=2, padding=3), "bn1").relu()
    x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
    stage = 1
    while f"layer{stage}.0.conv1.weight" in state:
        block, n = f"layer{stage}.0", 0
        while f"{block}.conv1.weight" in state:
            stride, shortcut, y = (2 if stage > 1 and n == 0 else 1), x, x
            kernels = [state[f"{block}.conv{k}.weight"] for k in (1, 2, 3) if f"{block}.conv{k}.weight" in state]
            strided = next(k for k, kernel in enumerate(kernels) if kernel.shape[-1] == 3)
            for k, kernel in enumerate(kernels):
                y = F.conv2d(y, kernel, stride=stride if k == strided else 1, padding=kernel.shape[-1] // 2)
                y = normed(y, f"{block}.bn{k + 1}")
                y = y.relu() if k + 1 < len(kernels) else y
            if f"{block}.downsample.0.weight" in state:
                shortcut = F.conv2d(x, state[f"{block}.downsample.0.weight"], stride=stride)
                shortcut = normed(shortcut, f"{block}.downsample.1")
            x, n = (y + shortcut).relu(), n + 1
            block = f"layer{stage}.{n}"
        stage += 1
    return x.flatten(2).mean(2)


def write_resnet(folder: Path, state: State, architecture: str = "resnet50.a1_in1k", size: int = 64) -> Path:
    """A ResNet of timm; ``config.json`` as on the hub."""
    made_for = {"input_size": [3, size, size], "mean": MEAN, "std": STD, "interpolation": "bicubic", "crop_pct": 0.95}
    config = {"architecture": architecture, "num_classes": 5, "num_features": len(state["fc.weight"][0])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(
        json.dumps({**config, "global_pool": "avg", "pretrained_cfg": {**made_for, "classifier": "fc"}})
    )
    save_file(state, folder / "model.safetensors")
    return folder


def embeddings(draw, prefix: str, width: int, patch: int, side: int) -> State:  # type: ignore[no-untyped-def]
    kernel = draw(width, 3, patch, patch, std=2 * (3 * patch**2) ** -0.5)
    return {
        f"{prefix}cls_token": draw(1, 1, width, std=0.3),
        f"{prefix}position_embeddings": draw(1, (side // patch) ** 2 + 1, width, std=0.3),
        f"{prefix}patch_embeddings.projection.weight": kernel,
        f"{prefix}patch_embeddings.projection.bias": draw(width, std=0.1),
    }


def attention(draw, block: str, width: int) -> State:  # type: ignore[no-untyped-def]
    state: State = {}
    for part in ("query", "key", "value"):
        state |= linear(draw, f"{block}attention.attention.{part}", width, width, gain=1.5)
    return state | linear(draw, f"{block}attention.output.dense", width, width)


def write(folder: Path, config: dict, state: State, preparation: dict) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    common = {"do_resize": True, "do_rescale": True, "do_normalize": True, "image_mean": MEAN, "image_std": STD}
    (folder / "preprocessor_config.json").write_text(json.dumps({**common, "resample": 3, **preparation}))
    save_file(state, folder / "model.safetensors")
    return folder


def forward(folder: Path, pixels: torch.Tensor) -> torch.Tensor:
    """Features of a folder's model written down a second time: normalised pixels [B, 3, S, S] -> class tokens [B, W]."""
    state, config = load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())
    timm, heads = "architecture" in config, config.get("num_attention_heads", 4)
    state = {key.removeprefix("vit."): value for key, value in state.items()}
    eps = config.get("layer_norm_eps", 1e-6)
    start = "" if timm else "embeddings."
    patches = state[f"{start}{'patch_embed.proj' if timm else 'patch_embeddings.projection'}.weight"]
    bias = state[f"{start}{'patch_embed.proj' if timm else 'patch_embeddings.projection'}.bias"]
    x = F.conv2d(pixels, patches, bias, stride=patches.shape[-1])
    positions = state["pos_embed" if timm else "embeddings.position_embeddings"][0]
    grid, side = positions[1:], x.shape[-1]
    if len(grid) != side**2:
        n = round(len(grid) ** 0.5)
        square, smooth = grid.T.reshape(1, -1, n, n), "embeddings.register_tokens" in state
        grid = F.interpolate(square, size=(side, side), mode="bicubic", antialias=smooth)[0].flatten(1).T
    x = x.flatten(2).transpose(1, 2) + grid
    first = (state[f"{start}cls_token"][0] + positions[:1]).expand(len(x), 1, -1)
    registers = state.get("embeddings.register_tokens", torch.zeros(1, 0, x.shape[-1])).expand(len(x), -1, -1)
    x = torch.cat([first, registers, x], 1)

    def part(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        return state[f"{name}.weight"], state[f"{name}.bias"]

    def normed(x: torch.Tensor, *names: str) -> torch.Tensor:
        name = next(name for name in names if f"{name}.weight" in state)
        return F.layer_norm(x, x.shape[-1:], *part(name), eps)

    for n in range(len([key for key in state if key.endswith(("attn.proj.weight", "attention.output.dense.weight"))])):
        block = f"blocks.{n}." if timm else f"encoder.layer.{n}."
        y = normed(x, f"{block}norm1", f"{block}layernorm_before")
        if timm:
            q, k, v = F.linear(y, *part(f"{block}attn.qkv")).chunk(3, -1)
        else:
            q, k, v = (F.linear(y, *part(f"{block}attention.attention.{kind}")) for kind in ("query", "key", "value"))
        rows = []
        for h in range(heads):
            one = slice(h * q.shape[-1] // heads, (h + 1) * q.shape[-1] // heads)
            scores = q[..., one] @ k[..., one].transpose(1, 2) / (q.shape[-1] // heads) ** 0.5
            rows.append(scores.softmax(-1) @ v[..., one])
        y = F.linear(torch.cat(rows, -1), *part(f"{block}{'attn.proj' if timm else 'attention.output.dense'}"))
        x = x + y * scale(state, block, 1)
        y = normed(x, f"{block}norm2", f"{block}layernorm_after")
        up, down = next(pair for pair in MLPS if f"{block}{pair[0]}.weight" in state)
        y = F.linear(F.gelu(F.linear(y, *part(block + up))), *part(block + down))
        x = x + y * scale(state, block, 2)
    return normed(x, "norm", "layernorm")[:, 0]


MLPS = (("mlp.fc1", "mlp.fc2"), ("intermediate.dense", "output.dense"))


def scale(state: State, block: str, number: int) -> torch.Tensor | float:
    names = f"{block}layer_scale{number}.lambda1", f"{block}ls{number}.gamma"
    return next((state[name] for name in names if name in state), 1.0)
