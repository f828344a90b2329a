"""Checkpoints: the tensors of a backbone, read without unpickling objects, checked by name and shape, and hashed."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import takewhile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from biomedcoop.errors import UserError

WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""Names of the weights in a directory in open_clip layout; the first that is there counts."""

SAME_NAMES: Mapping[str, str] = {}
"""What the file calls a tensor, by the name that the towers give it, where they differ: here nowhere."""


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
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)  # our own line follows
                state = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except UnpicklingError as error:
        raise UserError(
            f"{path}: refused, it holds more than tensors or is damaged; download it again, or take a copy in safetensors"
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


def write_tensors(state: Mapping[str, Tensor], path: Path) -> None:
    """Write a new file of safetensors with the rights that the user's new files have; safetensors would give none to others.

    Raises:
        OSError: as the system reports it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path.touch()
    rights = path.stat().st_mode
    try:
        save_file({key: value.contiguous() for key, value in state.items()}, path, metadata={"format": "pt"})
    except SafetensorError as error:  # of the file system too
        raise OSError(str(error)) from error
    path.chmod(rights)


def shape_of(
    state: Mapping[str, Tensor], key: str, dimensions: int, folder: Path, names: Mapping[str, str] = SAME_NAMES
) -> torch.Size:
    """Shape of a tensor from which sizes are read; a UserError if it is missing, empty or has other dimensions."""
    name = names.get(key, key)
    if key not in state:
        raise UserError(f"{folder}: the checkpoint lacks '{name}' (and perhaps more); download the weights again")
    shape = state[key].shape
    if len(shape) != dimensions or 0 in shape:
        raise UserError(f"{folder}: '{name}' has shape {list(shape)}, expected {dimensions} dimensions above 0")
    return shape


def joined(state: Mapping[str, Tensor], names: Sequence[str], folder: Path) -> Tensor:
    """The tensors of these names in one, along the first dimension: queries, keys and values that a file holds apart.

    Raises:
        UserError: they differ in shape or type.
    """
    first = state[names[0]]
    if len(names) == 1:
        return first
    for name in names:
        shape_of(state, name, 2 if name.endswith("weight") else 1, folder)
        if (state[name].shape, state[name].dtype) != (first.shape, first.dtype):
            raise UserError(
                f"{folder}: '{name}' is {state[name].dtype} of shape {list(state[name].shape)}, "
                f"'{names[0]}' {first.dtype} of shape {list(first.shape)}; download the weights again"
            )
    return torch.cat([state[name] for name in names])


def common_name(names: Sequence[str]) -> str:
    """One name for several tensors.

    Example:
        >>> common_name(["attn.q_proj.bias", "attn.k_proj.bias", "attn.v_proj.bias"])
        'attn.{q,k,v}_proj.bias'
    """
    if len(names) == 1:
        return names[0]

    def shared(texts: Sequence[str]) -> int:
        """Number of letters with which all texts begin."""
        return sum(1 for _ in takewhile(lambda letters: len(set(letters)) == 1, zip(*texts, strict=False)))

    start, end = shared(names), len(names[0]) - shared([name[::-1] for name in names])
    own = ",".join(name[start : len(name) - len(names[0]) + end] for name in names)
    return f"{names[0][:start]}{{{own}}}{names[0][end:]}"


def depth(state: Mapping[str, Tensor], prefix: str) -> int:
    """Number of blocks under ``prefix``, which are numbered from 0."""
    numbers = (key.removeprefix(prefix).partition(".")[0] for key in state if key.startswith(prefix))
    return max((int(text) + 1 for text in numbers if text.isdecimal()), default=0)


def _all_finite(value: Tensor) -> bool:
    # the sum needs no copy, and one value that is not finite makes it so; a sum that overflows needs the check of each value
    return bool(value.sum(dtype=torch.float32).isfinite()) or bool(value.isfinite().all())


def check_names(found: AbstractSet[str], expected: AbstractSet[str], folder: Path) -> None:
    """Refuse missing and unexpected tensors, by name."""
    for what, keys in (("lacks", expected - found), ("has unexpected", found - expected)):
        if keys:
            names = ", ".join(f"'{k}'" for k in sorted(keys)[:3]) + (
                f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            )
            raise UserError(f"{folder}: the checkpoint {what} {names}; it is damaged or of another architecture")


def check_tensors(
    state: Mapping[str, Tensor],
    expected: Mapping[str, torch.Size],
    folder: Path,
    names: Mapping[str, str] = SAME_NAMES,
) -> None:
    """Refuse missing, unexpected, misshapen and non-finite tensors by name, and a 'logit_scale' too large for its exponential."""
    check_names(state.keys(), expected.keys(), folder)
    for key, want in expected.items():
        name = names.get(key, key)
        if state[key].shape != want:
            raise UserError(f"{folder}: '{name}' has shape {list(state[key].shape)}, expected {list(want)}")
        if not state[key].is_floating_point():
            raise UserError(f"{folder}: '{name}' holds {state[key].dtype} values, expected floating point")
        if not _all_finite(state[key]):
            raise UserError(f"{folder}: '{name}' holds values that are not finite; download the weights again")
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
