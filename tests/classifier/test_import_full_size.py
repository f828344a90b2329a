"""A published checkpoint of BiomedCLIP's true size, random weights: layout, memory and time of its import."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import biomedcoop as bc
from benchmarks.speed.full_size import write_bin
from biomedcoop.backbones import load_backbone
from published_layout import PromptLearner, write_biomedcoop

pytestmark = pytest.mark.slow

NAMES = ("cyst kidney", "kidney word1", "normal kidney")


@pytest.fixture(scope="module")
def folders() -> Iterator[tuple[Path, Path, torch.Tensor]]:
    """The backbone, a checkpoint of BiomedCoOp on it, and its context; 1.9 GB, gone afterwards."""
    context = 0.05 * torch.randn(4, 768, generator=torch.Generator().manual_seed(1))
    with tempfile.TemporaryDirectory() as place:
        folder = write_bin(Path(place) / "biomedclip")
        file = Path(place) / "prompt_learner" / "model.pth.tar-100"
        write_biomedcoop(file, load_backbone(folder), NAMES, context)
        yield folder, file, context


IMPORT = """
import sys, time
from biomedcoop.backbones import load_backbone
from biomedcoop.benchmark.compute import Peak
import biomedcoop as bc
backbone = load_backbone(sys.argv[1])
peak = Peak()
loaded, start = peak.mebibytes(), time.process_time()
bc.import_published(sys.argv[2], sys.argv[4:], backbone=backbone).save(sys.argv[3])
print(time.process_time() - start, (peak.mebibytes() - loaded) / 2**10)
"""


def test_the_import_is_quick_lean_and_right(folders: tuple[Path, Path, torch.Tensor], tmp_path: Path) -> None:
    folder, file, context = folders
    size = file.stat().st_size
    assert 1.0e9 < size < 1.3e9  # both towers and a second image tower
    command = [
        sys.executable,
        "-W",
        "error::biomedcoop.errors.Note",
        "-c",
        IMPORT,
        folder,
        file,
        tmp_path / "m",
        *NAMES,
    ]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seconds, gib = map(float, done.stdout.split())
    print(f"{size / 1e9:.2f} GB imported in {seconds:.1f} s of processor time, {gib:.2f} GiB above the loaded backbone")
    assert seconds < 60
    assert gib < 0.8  # one tensor at a time

    backbone = load_backbone(folder)
    classifier = bc.load(tmp_path / "m", backbone)
    learner = PromptLearner(backbone, NAMES, context)
    prompts = torch.cat([learner.token_prefix, context.expand(3, -1, -1), learner.token_suffix], dim=1)
    with torch.inference_mode():
        t = nn.functional.normalize(backbone.towers.text(prompts, learner.ids != 0), dim=-1)  # all 256 tokens
        features = backbone.encode_image(torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(2)))
        f = nn.functional.normalize(features, dim=-1)
        expected = (backbone.logit_scale * f @ t.T).softmax(1).numpy()
    np.testing.assert_allclose(classifier.probabilities(features.numpy()), expected, atol=1e-4)
