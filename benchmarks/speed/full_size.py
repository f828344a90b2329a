"""Checkpoints of true layout and size with random weights, for what needs their size and not their knowledge; and what each costs.

    python -m benchmarks.speed.full_size [--backbones biomedclip,mini]

The command writes the folder of each backbone of the catalogue and measures it in a process of its own on one core, by the time of
the processor, so that other work on the machine counts little (Linux only): seconds to load it, images a second from crops in
memory, seconds of a BiomedCoOp step (4 classes, batches of 4, prepacked weights) with one run and with six in a pass, peak memory.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.command import start
from benchmarks.speed.floors import peak_mib
from benchmarks.speed.inputs import random_task
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.features.passes import encode_crops, image_batch
from biomedcoop.methods import get_method
from biomedcoop.methods.biomedcoop import BiomedCoOpSettings
from biomedcoop.methods.context import MANY_PASSES, ClassPrompts, ContextMethod
from biomedcoop.methods.training import batches
from biomedcoop.report.table import Table

SCALE = 4.4454  # of the published checkpoint, by order of magnitude

BERT = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
CONFIG = {
    "model_cfg": {
        "embed_dim": 512,
        "vision_cfg": {
            "timm_model_name": "vit_base_patch16_224",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": 224,
        },
        "text_cfg": {
            "hf_model_name": BERT,
            "hf_tokenizer_name": BERT,
            "hf_proj_type": "mlp",
            "hf_pooler_type": "cls_last_hidden_state_pooler",
            "context_length": 256,
        },
    },
    "preprocess_cfg": {
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
    },
}


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published checkpoint: ViT-B/16 at 224 px, BERT base, two projections."""

    def layer(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}

    def norm(name: str) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (768,), f"{name}.bias": (768,)}

    trunk, text = "visual.trunk.", "text.transformer."
    found: dict[str, tuple[int, ...]] = {
        "logit_scale": (),
        trunk + "cls_token": (1, 1, 768),
        trunk + "pos_embed": (1, 197, 768),
        trunk + "patch_embed.proj.weight": (768, 3, 16, 16),
        trunk + "patch_embed.proj.bias": (768,),
        **norm(trunk + "norm"),
        "visual.head.proj.weight": (512, 768),
        text + "embeddings.word_embeddings.weight": (30522, 768),
        text + "embeddings.position_embeddings.weight": (512, 768),
        text + "embeddings.token_type_embeddings.weight": (2, 768),
        **norm(text + "embeddings.LayerNorm"),
        "text.proj.0.weight": (640, 768),
        "text.proj.2.weight": (512, 640),
    }
    for n in range(12):
        block = f"{trunk}blocks.{n}."
        found |= norm(block + "norm1") | norm(block + "norm2")
        found |= layer(block + "attn.qkv", 2304, 768) | layer(block + "attn.proj", 768, 768)
        found |= layer(block + "mlp.fc1", 3072, 768) | layer(block + "mlp.fc2", 768, 3072)
        block = f"{text}encoder.layer.{n}."
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            found |= layer(block + name, 768, 768)
        found |= layer(block + "intermediate.dense", 3072, 768) | layer(block + "output.dense", 768, 3072)
        found |= norm(block + "attention.output.LayerNorm") | norm(block + "output.LayerNorm")
    return found


def random_weights(seed: int = 0) -> dict[str, Tensor]:
    """Small normal weights, LayerNorms near one; 195.9 million numbers."""
    generator = torch.Generator().manual_seed(seed)
    state = {name: 0.02 * torch.randn(shape, generator=generator) for name, shape in shapes().items()}
    for name, tensor in state.items():
        if "norm" in name.lower() and name.endswith("weight"):
            tensor += 1
    state["logit_scale"] = torch.tensor(SCALE)
    return state


def write_description(folder: Path) -> None:
    """Configuration and tokenizer; the vocabulary holds the letters, a few words, and word0, word1, … of one token each."""
    special = {0: "[PAD]", 1: "[UNK]", 2: "[CLS]", 3: "[SEP]", 4: "[MASK]"}
    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    words = [*letters, *(f"##{letter}" for letter in letters), "photo", "of", "scan", "cyst", "kidney", "normal"]
    words += [f"word{n}" for n in range(30522 - len(special) - len(words))]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    (folder / "vocab.txt").write_text("\n".join([*special.values(), *words]) + "\n")


def write_bin(folder: Path, state: dict[str, Tensor] | None = None) -> Path:
    """The whole folder as BiomedCLIP is published, 784 MB, with the old ``position_ids``."""
    write_description(folder)
    positions = {"text.transformer.embeddings.position_ids": torch.arange(512)[None]}
    torch.save({**(state or random_weights()), **positions}, folder / "open_clip_pytorch_model.bin")
    return folder


# --- other backbones ----------------------------------------------------------------------------------------------

CLIP_TOKENS = 49408
CLIP_TOWER = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-05, "num_hidden_layers": 12, "projection_dim": 512}


def clip_config(patch: int) -> dict[str, Any]:
    """What decides something in ``config.json`` of openai/clip-vit-base-patch16 and -patch32."""
    text = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "max_position_embeddings": 77}
    text |= {"vocab_size": CLIP_TOKENS, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    image = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    image |= {"image_size": 224, "patch_size": patch}
    return {
        **{"architectures": ["CLIPModel"], "model_type": "clip", "projection_dim": 512},
        **{"logit_scale_init_value": 2.6592, "initializer_factor": 1.0},
        **{"text_config": {**text, **CLIP_TOWER}, "text_config_dict": None},
        **{"vision_config": {**image, **CLIP_TOWER}, "vision_config_dict": None},
    }


def write_clip_tokenizer(folder: Path) -> None:
    """``vocab.json`` and ``merges.txt`` of CLIP's size: the tiny ones, and merges of signs that no text here holds."""
    from backbones.tiny_clip import END, START, vocabulary

    ids, merges = vocabulary()
    signs = [token for token in ids if len(token) == 1 and ord(token) > 127]
    pairs = list(itertools.product(signs, signs))
    triples = ((left + right, last) for (left, right), last in itertools.product(pairs, signs))
    merges += [*pairs, *triples][: CLIP_TOKENS - len(ids)]
    tokens = [token for token in ids if token not in (START, END)]
    tokens += [left + right for left, right in merges if left + right not in ids] + [START, END]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def clip_weights(patch: int) -> dict[str, Tensor]:
    """Random weights by the names of ``CLIPModel``."""
    draw = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {"logit_scale": torch.tensor(2.6592)}

    def matrix(name: str, *shape: int) -> None:
        state[name] = 0.02 * torch.randn(shape, generator=draw)

    def layer(name: str, outputs: int, inputs: int) -> None:
        matrix(f"{name}.weight", outputs, inputs)
        state[f"{name}.bias"] = torch.zeros(outputs)

    def norm(name: str, width: int) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = torch.ones(width), torch.zeros(width)

    for tower, width in (("text", 512), ("vision", 768)):
        for n in range(12):
            block = f"{tower}_model.encoder.layers.{n}."
            for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                layer(f"{block}self_attn.{part}", width, width)
            norm(block + "layer_norm1", width)
            norm(block + "layer_norm2", width)
            layer(block + "mlp.fc1", 4 * width, width)
            layer(block + "mlp.fc2", width, 4 * width)
    matrix("text_model.embeddings.token_embedding.weight", CLIP_TOKENS, 512)
    matrix("text_model.embeddings.position_embedding.weight", 77, 512)
    norm("text_model.final_layer_norm", 512)
    matrix("vision_model.embeddings.class_embedding", 768)
    matrix("vision_model.embeddings.patch_embedding.weight", 768, 3, patch, patch)
    matrix("vision_model.embeddings.position_embedding.weight", (224 // patch) ** 2 + 1, 768)
    norm("vision_model.pre_layrnorm", 768)
    norm("vision_model.post_layernorm", 768)
    matrix("text_projection.weight", 512, 512)
    matrix("visual_projection.weight", 512, 768)
    return state


def write_clip(folder: Path, patch: int) -> Path:
    """A CLIP ViT-B in the layout of the hub."""
    from backbones.tiny_transformers_clip import preprocessing

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(clip_config(patch)))
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing(224)))
    write_clip_tokenizer(folder)
    save_file(clip_weights(patch), folder / "model.safetensors")
    return folder


def write_full_pmc_clip(folder: Path) -> Path:
    """The files of its authors."""
    from backbones.tiny_pmc_clip import (
        FULL,
        IMAGE,
        PROJECTION,
        TEXT,
        image_state,
        projection,
        text_state,
        write_bert_files,
    )

    folder.mkdir(parents=True, exist_ok=True)
    torch.save(image_state(64, 224, 768, images=4), folder / IMAGE)
    torch.save(text_state(FULL), folder / TEXT)
    torch.save(projection(768, 768), folder / PROJECTION)
    write_bert_files(folder, FULL)
    return folder


def write_siglip_base(folder: Path) -> Path:
    from backbones.tiny_siglip import BASE, write_siglip

    return write_siglip(folder, BASE)


def write_full_dinov2(folder: Path, width: int) -> Path:
    from backbones.tiny_image_only import write_dinov2

    return write_dinov2(folder, width=width, layers=12, heads=width // 64, patch=14, stored=518, size=224)


WRITERS: dict[str, Callable[[Path], Path]] = {
    "biomedclip": write_bin,
    "clip-vit-b-16": lambda folder: write_clip(folder, 16),
    "clip-vit-b-32": lambda folder: write_clip(folder, 32),
    "pmc-clip": write_full_pmc_clip,
    "siglip-base": write_siglip_base,
    "dinov2-vit-s-14": lambda folder: write_full_dinov2(folder, 384),
    "dinov2-vit-b-14": lambda folder: write_full_dinov2(folder, 768),
    "mini": lambda _: Path("mini"),
}
"""By name. ``pubmedclip`` is of the size of ``clip-vit-b-32``; ``siglip-base`` is the smaller kin of ``medsiglip``."""

# --- what each costs ----------------------------------------------------------------------------------------------

NAMES = ("a scan of", "scan of a", "of a scan", "scan a of")
"""Of three tokens each in every vocabulary."""
SHOTS, SENTENCES, BATCH = 16, 50, 4
STEPS = {1: 3, 6: 1}


@dataclass(frozen=True)
class Cost:
    """What a backbone costs on one core; the times of a step are None for an image tower alone.

    Attributes:
        loading: seconds to load it; ``loaded`` the largest memory until then, MiB.
        images: encoded in a second.
        tokens: of each prompt.
        one, six: seconds of a step of one run, and of six runs together.
        peak: largest memory of all, MiB.
    """

    parameters: int
    size: int
    loading: float
    loaded: float
    images: float
    tokens: int | None
    one: float | None
    six: float | None
    peak: float


def cost_of(folder: str) -> Cost:
    """Of a backbone, in this process."""
    begin = time.process_time()
    backbone = load_backbone(folder)
    loading, loaded = time.process_time() - begin, peak_mib()
    many, size = 2 * image_batch(backbone), backbone.image_size
    crops = list(np.random.default_rng(0).integers(0, 256, (many, size, size, 3), dtype=np.uint8))
    encode_crops(backbone, crops)  # prepacks
    begin = time.process_time()
    encode_crops(backbone, crops)
    images = many / (time.process_time() - begin)
    tokens, one, six = None, None, None
    if backbone.has_text_tower:
        tokens, one = step_of(backbone, 1)
        six = step_of(backbone, 6)[1]
    numbers = sum(parameter.numel() for parameter in backbone.towers.parameters())
    return Cost(numbers, size, loading, loaded, images, tokens, one, six, peak_mib())


def step_of(backbone: Backbone, runs: int) -> tuple[int, float]:
    """Tokens of a prompt, and seconds of a training step."""
    method, settings, seeds = get_method("biomedcoop"), BiomedCoOpSettings(), range(1, runs + 1)
    assert isinstance(method, ContextMethod)
    task = random_task(backbone, NAMES, len(NAMES) * SHOTS, SENTENCES, runs)
    prompts = ClassPrompts(backbone, NAMES, settings)
    prompts.prepack(MANY_PASSES)
    context = prompts.initial_context(seeds).requires_grad_()
    schedule = batches(len(NAMES) * SHOTS, BATCH, 10**6, settings.lr, seeds)

    def train(steps: int) -> float:
        drawn = [next(schedule) for _ in range(steps)]
        begin = time.process_time()
        method.train(task, settings, prompts, context, drawn, seeds)
        return time.process_time() - begin

    train(1)  # prepacks
    return prompts.fixed.shape[1], train(STEPS[runs]) / STEPS[runs]


def measured(folder: Path) -> Cost:
    """In a process of its own, on one core."""
    words = [sys.executable, "-m", "benchmarks.speed.full_size", "--measure", str(folder)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def instructions() -> str:
    """Model of the processor and the instruction sets that matter to products (Linux only)."""
    lines = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    facts = {key.strip(): value.strip() for key, value in lines.items()}
    known = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in facts.get("flags", "").split()]
    return f"{facts.get('model name', 'unknown')} ({', '.join(known)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", default=",".join(WRITERS), help="separated by commas")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[os.getpid() % len(cores)]})
        torch.set_num_threads(1)
        print(json.dumps(asdict(cost_of(args.measure))))
        return
    names = args.backbones.split(",")
    if unknown := [name for name in names if name not in WRITERS]:
        parser.error(f"no backbone {unknown[0]!r} here; known: {', '.join(WRITERS)}")
    sys.path.append(str(Path(__file__).parents[2] / "tests"))  # which write the layouts of small models too
    rows, load = [], os.getloadavg()[0]
    for name in names:
        print(f"{name} …", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as place:
            cost = measured(WRITERS[name](Path(place) / name))
        steps = [f"{seconds:.2f}" if seconds is not None else "" for seconds in (cost.one, cost.six)]
        first = [
            f"`{name}`",
            f"{cost.parameters / 1e6:.0f}",
            str(cost.size),
            f"{cost.loading:.1f}",
            f"{cost.loaded:.0f}",
        ]
        rows.append([*first, f"{cost.images:.1f}", str(cost.tokens or ""), *steps, f"{cost.peak:.0f}"])
        print(rows[-1], file=sys.stderr, flush=True)
    head = ["backbone", "million weights", "px", "load, s", "memory loaded, MiB", "images/s", "tokens", "step, s"]
    head += ["step of six, s", "peak memory, MiB"]
    note = f"{instructions()}, one core, torch {torch.__version__}, float32; load average before the start {load:.1f}."
    print(Table(head, rows, "l" + "r" * (len(head) - 1), notes=[note]).markdown())


if __name__ == "__main__":
    start(main)
