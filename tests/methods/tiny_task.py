"""A task of six images of noise and three classes, for methods that train through the towers."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from biomedcoop.backbones.base import Backbone
from biomedcoop.methods.base import Task


def tiny_task(backbone: Backbone, names: Sequence[str]) -> Task:
    pixels = torch.randn(6, 3, backbone.image_size, backbone.image_size, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        features = backbone.encode_image(pixels)
    labels = torch.tensor([[0, 1, 2, 0, 1, 2]])
    return Task(backbone, list(names), features[None], labels, pixels=lambda run, rows, _: pixels[rows])
