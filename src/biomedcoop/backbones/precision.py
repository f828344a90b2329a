"""Precision of the frozen towers: float32, bfloat16 where the processor has units for it, or int8 on other CPUs.

Weights and activations between layers have that precision; LayerNorm and softmax sum in float32, as torch does. On a CPU the
text tower stays in float32: training through it was slower in bfloat16, whose weights are not prepacked for the way back. Learned
tensors are float32 everywhere. "int8"
quantises the image tower's dense layers: weights have one scale for each output, activations one scale for each image.

Of an EfficientNet-Lite, bfloat16 holds for the 1 × 1 convolutions alone, which are nine tenths of its multiply-adds. A depthwise
convolution sums nine or 25 products, too few for rounding errors to cancel: with all weights and maps in bfloat16, features of
``mini`` turn by up to 10 degrees (66 medical images). int8 is refused, since the tower has one dense layer.

PMC-CLIP's ResNet-50 computes in float32 alone. Its published weights have not been measured. With random ones, 24 medical images
had least cosines of 0.86 to 0.994 in bfloat16 and of 0.84 to 0.993 in int8, at the speed of float32.
"""

from __future__ import annotations

import copy
import hashlib
import platform
import time
import warnings
from contextlib import suppress

import numpy as np
import torch
from torch import nn

from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.bfloat16 import has_bfloat16
from biomedcoop.backbones.efficientnet_lite import Convolution
from biomedcoop.backbones.prepack import prepack_image_tower
from biomedcoop.errors import UserError, notify
from biomedcoop.output import cache_root, write_atomically
from biomedcoop.threads import torch_threads

WORTH = 1.5
"""Speed of bfloat16 over float32 from which "auto" chooses bfloat16."""

_PROBE_IMAGES, _PROBE_ROUNDS, _PROBE_SECONDS = 4, 10, 0.5

_gains: dict[tuple[str, torch.device], float] = {}


def set_precision(backbone: Backbone, precision: str) -> None:
    """Convert float32 towers to a precision; a backbone can be converted once.

    Args:
        precision: a name in :data:`biomedcoop.backbones.registry.PRECISIONS`; "auto" measures both, and chooses bfloat16
            where it is :data:`WORTH` times as fast.

    Raises:
        UserError: int8 on another device than a CPU or with a torch that lacks it; a precision that is not one of the
            backbone's ``precisions``; or the towers are already converted.
    """
    if backbone.precision != "float32":
        raise UserError(f"{backbone.name} is already in {backbone.precision}; load it again for precision {precision}")
    if precision == "auto":
        precision = automatic(backbone)
    if precision not in backbone.precisions:
        raise UserError(
            f"{backbone.name}: precision {precision} is not known to keep its image features; choose "
            f"{' or '.join(backbone.precisions)}"
        )
    if precision == "int8":
        backbone.image_tower = quantized(backbone)
    elif precision == "bfloat16":
        coarsen_images(backbone.image_tower)
        if backbone.device.type == "cpu" and not has_bfloat16():
            notify(
                [
                    f"{backbone.name}: bfloat16 is slower than float32 here, because PyTorch has no fast bfloat16 for this "
                    "processor; precision auto chooses the faster one"
                ]
            )
    backbone.precision = precision
    if precision == "bfloat16" and backbone.device.type == "cuda":
        coarsen_text(backbone)


def quantized(backbone: Backbone) -> nn.Module:
    """The image tower with dense layers in int8."""
    if backbone.device.type != "cpu":
        raise UserError(f"precision int8 is for CPUs, not '{backbone.device}'; choose bfloat16")
    try:
        from torch.ao.quantization import quantize_dynamic
    except ImportError as error:
        raise UserError(f"torch {torch.__version__} has no int8 quantisation; choose float32 or bfloat16") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch means to move this elsewhere
        tower: nn.Module = quantize_dynamic(backbone.image_tower, {nn.Linear}, dtype=torch.qint8)  # type: ignore[no-untyped-call]
    return tower


def coarsen_images(tower: nn.Module) -> None:
    """Convert an image tower to bfloat16; of an EfficientNet-Lite its 1 × 1 convolutions."""
    parts: list[nn.Module] = [
        layer for layer in tower.modules() if isinstance(layer, Convolution) and layer.kernel_size == (1, 1)
    ]
    for part in parts or [tower]:
        part.to(torch.bfloat16)


def coarsen_text(backbone: Backbone) -> None:
    """Convert the text tower to bfloat16 too (mixed precision: learned tensors stay float32)."""
    for name, parameter in backbone.towers.named_parameters():
        if not name.startswith("visual."):
            parameter.data = parameter.data.to(torch.bfloat16)
    backbone.dtype = torch.bfloat16


def automatic(backbone: Backbone) -> str:
    """The precision that "auto" chooses for this backbone on this machine.

    Nothing is measured on a processor without bfloat16, where it is slower by far.
    """
    possible = "bfloat16" in backbone.precisions and (backbone.device.type != "cpu" or has_bfloat16())
    return "bfloat16" if possible and bfloat16_gain(backbone) >= WORTH else "float32"


def bfloat16_gain(backbone: Backbone) -> float:
    """Speed of this float32 image tower in bfloat16 over float32.

    It is measured once on a machine, in one or two seconds, and kept in the user's cache folder, so that a run that is repeated
    there chooses the same precision.
    """
    key = backbone.fingerprint, backbone.device
    if key not in _gains:
        _gains[key] = _kept_gain(backbone)
    return _gains[key]


def _kept_gain(backbone: Backbone) -> float:
    """The gain that an earlier process measured on this machine with this version of torch, or that this one measures."""
    device = backbone.device
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    facts = (backbone.fingerprint, device.type, hardware, platform.node(), str(torch.__version__))
    file = cache_root() / "bfloat16-gains" / hashlib.sha256("\n".join(facts).encode()).hexdigest()[:32]
    with suppress(OSError, ValueError):
        return float(file.read_text())
    gain = _measured_gain(backbone)
    with suppress(
        OSError, UserError
    ):  # a folder that cannot be written only means that the next process measures again
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, f"{gain:.3f}\n".encode())
    return round(gain, 3)


def _measured_gain(backbone: Backbone) -> float:
    """Measured in turn, the best of several passes each, with weights prepacked as for encoding."""
    size = backbone.image_size
    pixels = backbone.normalize(np.zeros((_PROBE_IMAGES, size, size, 3), dtype=np.uint8))
    works = []
    for coarse in (False, True):
        own = copy.copy(backbone)
        own.image_tower = copy.deepcopy(backbone.image_tower)  # prepacked weights suit passes of one size
        if coarse:
            coarsen_images(own.image_tower)
        dtype = next(own.image_tower.parameters()).dtype
        works.append((prepack_image_tower(own).image_tower, pixels.to(dtype)))
    # processor time of one thread on a CPU: other work on the machine must not decide
    clock = time.thread_time if backbone.device.type == "cpu" else time.perf_counter
    best = [float("inf")] * len(works)
    with torch_threads(1), torch.inference_mode():
        for tower, x in works:
            tower(x)[0, 0].item()  # prepacks
        end = clock() + _PROBE_SECONDS
        for _ in range(_PROBE_ROUNDS):
            for i, (tower, x) in enumerate(works):
                start = clock()
                tower(x)[0, 0].item()  # waits for the device
                best[i] = min(best[i], clock() - start)
            if clock() > end:
                break
    return best[0] / best[1]
