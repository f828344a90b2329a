"""OpenAI's CLIP (Radford et al. 2021, arXiv 2103.00020) from one ``.pth`` file with OpenAI's own names of tensors.

PubMedCLIP (Eslami et al. 2023) was first published like this: ``PubMedCLIP_ViT32.pth``. Such a file has no configuration. OpenAI's
models need none: layers and sizes follow from the tensors, and each attention head is 64 wide.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from biomedcoop.backbones.catalogue import lone_weights
from biomedcoop.backbones.checkpoint import depth, read_weights, shape_of
from biomedcoop.backbones.clip import ClipBackbone, build_clip
from biomedcoop.backbones.configuration import MEAN, STD
from biomedcoop.backbones.open_clip_config import ClipDescription
from biomedcoop.errors import UserError

HEAD_WIDTH = 64


def load_openai_clip(
    folder: Path, *, name: str | None = None, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> ClipBackbone:
    """Load a CLIP from a directory that holds one ``.pth`` file and the files of CLIP's tokenizer.

    Args:
        folder: holds the weights, and ``tokenizer.json`` or ``vocab.json`` with ``merges.txt``.
        name: name of the backbone; the folder's name by default.
        device: where the towers run.
        dtype: precision of the text tower; the image tower computes in float32.

    Raises:
        UserError: the weights hold more than tensors, or tensors are missing, unexpected, misshapen or not finite.
    """
    path = lone_weights(folder)
    assert path is not None, "the family was found by it"
    state = read_weights(folder, (path.name,))
    return build_clip(folder, describe(state, path), state, name, device, dtype)


def describe(state: Mapping[str, Tensor], path: Path) -> ClipDescription:
    """What OpenAI's design implies for these tensors.

    Raises:
        UserError: they are not those of an OpenAI CLIP.
    """
    first, second, third, fourth = (depth(state, f"visual.layer{stage}.") for stage in (1, 2, 3, 4))
    image_layers = (first, second, third, fourth) if first else depth(state, "visual.transformer.resblocks.")
    text_layers = depth(state, "transformer.resblocks.")
    if not (image_layers and text_layers):
        raise UserError(f"{path}: the tensors have other names than those of OpenAI's CLIP, so it cannot be loaded")
    context_length, width = shape_of(state, "positional_embedding", 2, path.parent)
    if width % HEAD_WIDTH:
        raise UserError(
            f"{path}: the text tower is {width} wide, which is no multiple of {HEAD_WIDTH}, as in OpenAI's CLIP"
        )
    return ClipDescription(
        quick_gelu=True,
        image_layers=image_layers,
        head_width=HEAD_WIDTH,
        text_layers=text_layers,
        text_heads=width // HEAD_WIDTH,
        context_length=context_length,
        mean=MEAN,
        std=STD,
        sizes={},
        file=path.name,
    )
