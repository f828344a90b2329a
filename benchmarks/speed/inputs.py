"""Drawn inputs of the speed benchmarks: names, images and tasks whose cost does not depend on what they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from biomedcoop.backbones.base import Backbone
from biomedcoop.methods import Task


def class_names(count: int, words: int) -> tuple[str, ...]:
    """Names of so many words of one token each in the vocabulary of ``full_size.py``."""
    return tuple(" ".join(f"word{words * c + w}" for w in range(words)) for c in range(count))


def write_jpegs(
    folder: Path, counts: Mapping[str, int], names: Sequence[str], width: int = 512, height: int = 488
) -> None:
    """``folder/<split>/<class>/<number>.jpg``: smooth fields with noise, quality 90; ``counts`` images of each class by split."""
    generator = np.random.default_rng(0)
    for split, count in counts.items():
        for name in names:
            place = folder / split / name.replace(" ", "_")
            place.mkdir(parents=True)
            for number in range(count):
                field = Image.fromarray(generator.integers(30, 200, (12, 12), dtype=np.uint8))
                pixels = np.asarray(field.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
                pixels += generator.integers(-8, 9, pixels.shape, dtype=np.int16)
                grey = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                grey.convert("RGB").save(place / f"{number:04d}.jpg", quality=90)


def random_task(backbone: Backbone, names: Sequence[str], images: int, sentences: int, runs: int) -> Task:
    """Random features of so many images in each run, and of so many sentences for each class."""
    generator, device, width = torch.Generator().manual_seed(0), backbone.device, backbone.embed_dim
    features = torch.randn(runs, images, width, generator=generator).to(device)
    words = torch.randn(len(names), sentences, width, generator=generator).to(device)
    labels = (torch.arange(images, device=device) % len(names)).repeat(runs, 1)
    return Task(backbone, names, features, labels, words)
