"""BiomedCLIP's true layout and size, with random weights: what its download will meet is tested without its 784 MB."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import biomedcoop as bc
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.open_clip import OpenClipBackbone

pytestmark = pytest.mark.slow

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


@pytest.fixture(scope="module")
def folders() -> Iterator[tuple[Path, Path]]:
    """The same model twice, as ``.bin`` (with the old ``position_ids``) and as safetensors; 1.6 GB, gone afterwards."""
    generator = torch.Generator().manual_seed(0)
    state = {name: 0.02 * torch.randn(shape, generator=generator) for name, shape in shapes().items()}
    for name, tensor in state.items():
        if "norm" in name.lower() and name.endswith("weight"):
            tensor += 1
    state["logit_scale"] = torch.tensor(SCALE)
    special = {0: "[PAD]", 1: "[UNK]", 2: "[CLS]", 3: "[SEP]", 4: "[MASK]"}
    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    words = [*letters, *(f"##{letter}" for letter in letters), "photo", "scan", "cyst", "kidney", "normal"]
    words += [f"word{n}" for n in range(30522 - len(special) - len(words))]
    with tempfile.TemporaryDirectory() as place:
        as_bin, as_safetensors = Path(place) / "bin", Path(place) / "safetensors"
        as_bin.mkdir()
        (as_bin / "open_clip_config.json").write_text(json.dumps(CONFIG))
        (as_bin / "tokenizer_config.json").write_text('{"do_lower_case": true}')
        (as_bin / "vocab.txt").write_text("\n".join([*special.values(), *words]) + "\n")
        shutil.copytree(as_bin, as_safetensors)
        save_file(state, as_safetensors / "open_clip_model.safetensors")
        state["text.transformer.embeddings.position_ids"] = torch.arange(512)[None]
        torch.save(state, as_bin / "open_clip_pytorch_model.bin")
        del state, tensor
        yield as_bin, as_safetensors


@pytest.fixture(scope="module")
def backbone(folders: tuple[Path, Path]) -> OpenClipBackbone:
    loaded = load_backbone(folders[0])
    assert isinstance(loaded, OpenClipBackbone)
    return loaded


def test_sizes(backbone: OpenClipBackbone) -> None:
    assert sum(p.numel() for p in backbone.towers.parameters()) == 195_902_721
    assert (backbone.image_size, backbone.context_length, backbone.embed_dim, backbone.token_dim) == (
        224,
        256,
        512,
        768,
    )
    assert backbone.towers.visual.trunk.config.heads == backbone.towers.text.transformer.config.heads == 12
    assert backbone.logit_scale == pytest.approx(np.exp(SCALE), rel=1e-6)


def test_both_towers_encode(backbone: OpenClipBackbone) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    with torch.inference_mode():
        images = backbone.encode_image(backbone.normalize(crops))
        texts = backbone.encode_text(["a photo of a cyst.", "Normal KIDNEY, word7"])
        long = backbone.tokenize(["cyst " * 400])
    assert images.shape == texts.shape == (2, 512)
    assert torch.isfinite(images).all()
    assert torch.isfinite(texts).all()
    assert not torch.allclose(texts[0], texts[1])
    assert long.shape == (1, 256)


def test_zero_shot_classification(backbone: OpenClipBackbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIOMEDCOOP_CACHE", str(tmp_path))
    images = np.random.default_rng(1).integers(0, 256, (4, 64, 80), dtype=np.uint8)
    data = bc.Dataset(
        "scans",
        ("cyst", "normal kidney"),
        images,
        tuple(f"train[{n}]" for n in range(4)),
        np.array([0, 1, 0, 1]),
        np.array(["train", "train", "test", "test"]),
    )
    classifier = bc.fit(data, method="zero-shot", backbone=backbone)
    probabilities = classifier.predict_proba(list(images))
    assert probabilities.shape == (4, 2)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)


def test_the_safetensors_twin_has_the_same_fingerprint(folders: tuple[Path, Path], backbone: OpenClipBackbone) -> None:
    assert load_backbone(folders[1]).fingerprint == backbone.fingerprint


LOAD_AND_ENCODE = """
import resource, sys, time
import torch
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.open_clip import OpenClipBackbone
start = time.process_time()
backbone = load_backbone(sys.argv[1])
seconds = time.process_time() - start
with torch.inference_mode():
    backbone.encode_image(torch.zeros(8, 3, 224, 224))
    backbone.encode_text(["a photo of a cyst."] * 16)
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def test_load_time_and_memory(folders: tuple[Path, Path]) -> None:
    """Of a process that loads the ``.bin`` and encodes a batch of each kind: processor time, and the largest resident memory."""
    command = [sys.executable, "-c", LOAD_AND_ENCODE, str(folders[0])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, gib = map(float, done.stdout.split())
    print(f"load {seconds:.1f} s of processor time, peak {gib:.2f} GiB")
    assert seconds < 30
    assert gib < 4
