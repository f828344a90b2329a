"""BiomedCLIP's true layout and size, with random weights: what its download will meet is tested without its 784 MB."""

from __future__ import annotations

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
from benchmarks.speed.full_size import SCALE, random_weights, write_bin, write_description
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.open_clip import OpenClipBackbone
from biomedcoop.backbones.registry import check_model, check_place

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folders() -> Iterator[tuple[Path, Path]]:
    """The same model twice, as ``.bin`` (with the old ``position_ids``) and as safetensors; 1.6 GB, gone afterwards."""
    state = random_weights()
    with tempfile.TemporaryDirectory() as place:
        as_bin, as_safetensors = Path(place) / "bin", Path(place) / "safetensors"
        write_bin(as_bin, state)
        write_description(as_safetensors)
        save_file(state, as_safetensors / "open_clip_model.safetensors")
        del state
        yield as_bin, as_safetensors


@pytest.fixture(scope="module")
def backbone(folders: tuple[Path, Path]) -> OpenClipBackbone:
    loaded = load_backbone(folders[0])
    assert isinstance(loaded, OpenClipBackbone)
    return loaded


def test_sizes(backbone: OpenClipBackbone, folders: tuple[Path, Path]) -> None:
    check_place("biomedclip", folders[0])
    check_model("biomedclip", folders[0], backbone)
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
import sys, time
import torch
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.open_clip import OpenClipBackbone
from biomedcoop.benchmark.compute import Peak
peak, start = Peak(), time.process_time()
backbone = load_backbone(sys.argv[1])
seconds = time.process_time() - start
with torch.inference_mode():
    backbone.encode_image(torch.zeros(8, 3, 224, 224))
    backbone.encode_text(["a photo of a cyst."] * 16)
print(seconds, peak.mebibytes() / 2**10)
"""


def test_load_time_and_memory(folders: tuple[Path, Path]) -> None:
    """Of a process that loads the ``.bin`` and encodes a batch of each kind: processor time, and the largest resident memory."""
    command = [sys.executable, "-c", LOAD_AND_ENCODE, str(folders[0])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, gib = map(float, done.stdout.split())
    print(f"load {seconds:.1f} s of processor time, peak {gib:.2f} GiB")
    assert seconds < 30
    assert gib < 4
