"""The protocol of the paper's Figure 2 from end to end, on reduced copies of its four families of backbones with random weights."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from backbones.tiny_pmc_clip import write_pmc_clip
from backbones.tiny_transformers_clip import config, transformers_state, vit_state, write_transformers
from biomedcoop.backbones.catalogue import BACKBONES
from biomedcoop.benchmark.runner import run_benchmark

from .conftest import TINY, Here, lines_of

FAMILIES = ("clip-vit-b-16", "pubmedclip", "pmc-clip", "biomedclip")


def write_families(root: Path) -> None:
    """The four backbones under their published file names, where ``--backbone NAME`` looks for them."""
    write_transformers(root / "clip-vit-b-16")
    # PubMedCLIP has patches twice as wide, and its weights are pickled
    folder = write_transformers(root / "pubmedclip")
    described = config()
    described["vision_config"]["patch_size"] = 16
    (folder / "config.json").write_text(json.dumps(described))
    (folder / "model.safetensors").unlink()
    torch.save(transformers_state(vit_state(patch=16)), folder / "pytorch_model.bin")
    write_pmc_clip(root / "pmc-clip")
    folder = Path(shutil.copytree(TINY, root / "biomedclip"))
    weights = folder / "open_clip_model.safetensors"
    torch.save(
        load_file(weights) | {"text.transformer.embeddings.position_ids": torch.arange(64)[None]},
        weights.with_name("open_clip_pytorch_model.bin"),
    )
    weights.unlink()


def write_scans(folder: Path) -> Path:
    """``busi/train|test/CLASS/NUMBER.png`` with the classes of BUSI, each of another pattern; 16 and 8 of each."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:40, :40]
    patterns = {"benign tumor": x // 10 % 2, "malignant tumor": y // 10 % 2, "normal scan": x * 0}
    for name, pattern in patterns.items():
        for split, count in (("train", 16), ("test", 8)):
            place = folder / "busi" / split / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = 60 + 120 * pattern + generator.integers(0, 60, (40, 40))
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{number:02d}.png")
    return folder / "busi"


@pytest.mark.slow
def test_figure_2_on_reduced_copies_of_its_backbones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIOMEDCOOP_CACHE", str(tmp_path / "cache"))
    for name in FAMILIES:  # reduced copies have other sizes
        monkeypatch.setitem(BACKBONES, name, replace(BACKBONES[name], model=None))  # type: ignore[arg-type]
    write_families(tmp_path / "cache" / "backbones")
    out = tmp_path / "out"
    summary = run_benchmark(
        "paper-backbones", out, datasets=[str(write_scans(tmp_path))], executor=Here(), progress=False
    )
    assert (summary.done, summary.skipped, summary.failed) == (4 + 4 * 3, 0, 0)

    lines = lines_of(out)
    assert all(line["shots"] in (0, 16) for line in lines)
    means = {}
    for method in ("zero-shot", "biomedcoop"):
        for family in FAMILIES:
            of = [line["tests"]["busi"] for line in lines if (line["method"], line["backbone"]) == (method, family)]
            means[method, family] = np.mean([values["accuracy"] for values in of])
    with (out / "report" / "tables" / "backbones-all-datasets.csv").open() as file:
        rows = {(row["method"], row["backbone"]): float(row["16"]) for row in csv.DictReader(file)}
    assert list(rows) == list(means)
    assert rows == pytest.approx({key: 100 * value for key, value in means.items()}, abs=1e-3)
    # random towers know no words, so what is right beyond chance has been learned from the images
    for family in FAMILIES:
        assert means["biomedcoop", family] > max(0.45, means["zero-shot", family])

    assert "](figures/backbones.png)" in (out / "report" / "report.md").read_text()
    assert (out / "report" / "figures" / "backbones.pdf").stat().st_size > 5000
