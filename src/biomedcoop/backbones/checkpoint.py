"""Checkpoints: the tensors of a backbone, read without unpickling objects, checked by name and shape, and hashed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from biomedcoop.errors import UserError

WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""Names of the weights in a directory in open_clip layout; the first that is there counts."""


def find_weights(folder: Path, names: Sequence[str] = WEIGHTS) -> Path:
    """The file of weights in a directory: the first of ``names`` that is there; a UserError if none is."""
    path = next((folder / name for name in names if (folder / name).exists()), None)
    if path is None:
        raise UserError(f"{folder}: has neither {' nor '.join(names)}; copy the weights into it")
    return path


def read_weights(folder: Path, names: Sequence[str] = WEIGHTS) -> dict[str, Tensor]:
    """The tensors of a directory's checkpoint, memory-mapped and read without unpickling objects.

    Left out is what carries nothing: ``position_ids`` and BatchNorm's counters of training steps.

    Args:
        names: names that the file may have; the first that is there counts.

    Raises:
        UserError: the weights are missing or damaged, or hold more than tensors.
    """
    # transformers once stored the positions 0, 1, 2, …
    counted = ("position_ids", ".num_batches_tracked")
    tensors = read_tensors(find_weights(folder, names))
    return {k.removeprefix("module."): v for k, v in tensors.items() if not k.endswith(counted)}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of one file by name, memory-mapped and read without unpickling objects.

    A tensor that is alone in its file, without a name, gets that of the file.

    Raises:
        UserError: the file is damaged, or holds more than tensors.
    """
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            with path.open("rb") as file:
                archive = file.read(2) == b"PK"  # before torch 1.6 it was a bare pickle, which cannot be mapped
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except UnpicklingError as error:
        raise UserError(
            f"{path}: refused, it holds more than tensors or is damaged; download it again or convert it to safetensors"
        ) from error
    except Exception as error:  # flipped bytes make the two libraries raise a dozen types, some bare
        reason = (str(error).splitlines() or [""])[0][:120] or type(error).__name__
        raise UserError(f"{path}: the weights cannot be read ({reason}); download the file again") from error
    if isinstance(state, dict):
        state = state.get("state_dict", state)
    elif isinstance(state, Tensor):
        state = {path.stem: state}
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) and value.layout == torch.strided
        for key, value in state.items()
    ):
        raise UserError(f"{path}: is not a checkpoint (tensors by name); download the file again")
    return state


def shape_of(state: Mapping[str, Tensor], key: str, dimensions: int, folder: Path) -> torch.Size:
    """Shape of a tensor from which sizes are read; a UserError if it is missing, empty or has other dimensions."""
    if key not in state:
        raise UserError(f"{folder}: the checkpoint lacks '{key}' (and perhaps more); download the weights again")
    shape = state[key].shape
    if len(shape) != dimensions or 0 in shape:
        raise UserError(f"{folder}: '{key}' has shape {list(shape)}, expected {dimensions} dimensions above 0")
    return shape


def _all_finite(value: Tensor) -> bool:
    # the sum needs no copy, and one value that is not finite makes it so; a sum that overflows needs the check of each value
    return bool(value.sum(dtype=torch.float32).isfinite()) or bool(value.isfinite().all())


def check_tensors(state: Mapping[str, Tensor], expected: Mapping[str, torch.Size], folder: Path) -> None:
    """Refuse missing, unexpected, misshapen and non-finite tensors by name, and a 'logit_scale' too large for its exponential."""
    for what, keys in (("lacks", expected.keys() - state.keys()), ("has unexpected", state.keys() - expected.keys())):
        if keys:
            names = ", ".join(f"'{k}'" for k in sorted(keys)[:3]) + (
                f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            )
            raise UserError(f"{folder}: the checkpoint {what} {names}; it is damaged or of another architecture")
    for key, want in expected.items():
        if state[key].shape != want:
            raise UserError(f"{folder}: '{key}' has shape {list(state[key].shape)}, expected {list(want)}")
        if not state[key].is_floating_point():
            raise UserError(f"{folder}: '{key}' holds {state[key].dtype} values, expected floating point")
        if not _all_finite(state[key]):
            raise UserError(f"{folder}: '{key}' holds values that are not finite; download the weights again")
    if "logit_scale" in state and not bool(state["logit_scale"].float().exp().isfinite()):
        raise UserError(f"{folder}: the exponential of 'logit_scale' is not finite; download the weights again")


def fill(towers: nn.Module, state: Mapping[str, Tensor], device: torch.device | str, dtype: torch.dtype) -> None:
    """Give towers on the meta device their tensors, frozen: the image tower's in float32, all others in ``dtype``."""

    def ready(key: str, value: Tensor) -> Tensor:
        value = value.to(device=device, dtype=torch.float32 if key.startswith("visual.") else dtype)
        # the place of a tensor in its file decides its alignment in memory, which on some processors decides the last bits
        return value if value.data_ptr() % 64 == 0 else value.clone()

    towers.load_state_dict({key: ready(key, value) for key, value in state.items()}, assign=True)
    towers.requires_grad_(False).eval()


def fingerprint(facts: Sequence[Mapping[str, Any]], state: Mapping[str, Tensor], tokenizer: str) -> str:
    """Hash of the tensors as stored, and of all else that decides a feature.

    Args:
        facts: the architecture (no shape tells the number of heads) and the preprocessing, as JSON values.
        tokenizer: signature of the tokenizer.

    Returns:
        32 hex digits, the same for every file format.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode() + tokenizer.encode())
    for key in sorted(state):
        value = state[key].detach().contiguous()
        digest.update(f"{key} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]
