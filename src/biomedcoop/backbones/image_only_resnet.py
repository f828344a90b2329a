"""A ResNet without a text tower, for the methods that need no words: those of timm and torchvision.

The feature of an image is the mean of the last map, before the classifier, which was trained for another task and is left out.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor, nn

from biomedcoop.backbones.catalogue import lone_weights
from biomedcoop.backbones.checkpoint import check_tensors, fill, fingerprint, read_weights, shape_of
from biomedcoop.backbones.image_only import WEIGHTS, ImageBackbone
from biomedcoop.backbones.image_only_config import CONFIG, Preparation, read_resnet_preparation
from biomedcoop.backbones.resnet import ResNet, ResNetConfig, read_config
from biomedcoop.errors import UserError

TORCHVISION = Preparation(image_size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""How torchvision prepares the pixels of all its ResNets; its files hold tensors alone."""

CLASSIFIER = "fc."
"""Beginning of the names of the classifier's tensors."""


class Towers(nn.Module):
    """The image tower under the prefix that all backbones give it."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.visual = ResNet(config)


class ResNetBackbone(ImageBackbone):
    """A loaded ResNet without a text tower. Use :func:`load_resnet`.

    Image layers are named as in timm and torchvision, for instance ``layer4`` ([B, C, H, W]).
    """

    towers: Towers
    tower_kind = "resnet"
    map_layer = "layer4"
    precisions = ("float32",)

    def __init__(self, name: str, towers: Towers, prepared: Preparation, digest: str, dtype: torch.dtype) -> None:
        super().__init__(name, towers, prepared, digest, dtype)
        self.embed_dim = towers.visual.config.outer[-1]

    def attention_maps(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        raise UserError(
            f"{self.name}: its image tower is a ResNet, which has no attention maps; use a backbone with a ViT"
        )


def load_resnet(
    folder: Path, *, name: str | None = None, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> ResNetBackbone:
    """Load a ResNet in the layout of timm, or one that torchvision has saved.

    Args:
        folder: holds ``config.json`` with ``model.safetensors`` or ``pytorch_model.bin``, or a single ``.pth``.
        name: name of the backbone; the folder's name by default.
        device: where the tower runs.
        dtype: unused: there is no text tower.

    Raises:
        UserError: a file is missing or unreadable, the configuration asks for another design, or tensors are missing, unexpected,
            misshapen or not finite.
    """
    if (folder / CONFIG).exists():
        prepared, names = read_resnet_preparation(folder), WEIGHTS
    else:
        lone = lone_weights(folder)
        assert lone is not None, "the family was found by it"
        prepared, names = TORCHVISION, (lone.name,)
    state = read_weights(folder, names)
    state = {key: value for key, value in state.items() if not key.startswith(CLASSIFIER)}
    config = read_config(prepared.image_size, state, lambda key, dimensions: shape_of(state, key, dimensions, folder))
    with torch.device("meta"):
        towers = Towers(config)
    shapes = {key.removeprefix("visual."): value.shape for key, value in towers.state_dict().items()}
    check_tensors(state, shapes, folder)
    digest = fingerprint([dataclasses.asdict(config), dataclasses.asdict(prepared)], state, "")
    fill(towers, {f"visual.{key}": value for key, value in state.items()}, device, dtype)
    return ResNetBackbone(name or folder.name, towers, prepared, digest, dtype)
