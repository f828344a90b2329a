"""Inputs shared by many cells of a study; each process loads them once."""

from __future__ import annotations

from functools import cache

import torch

from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.readers.load import load_dataset
from biomedcoop.features.images import encode_images


@cache
def loaded(backbone: str) -> Backbone:
    """The backbone with this name or folder."""
    return load_backbone(backbone)


@cache
def encoded(dataset: str, backbone: str) -> tuple[Dataset, torch.Tensor]:
    """A dataset and the raw features [N, E] of all its images."""
    data = load_dataset(dataset)
    return data, torch.from_numpy(encode_images(loaded(backbone), data))
