"""Weights that PyTorch has pickled become safetensors: they load faster, and no reader has to unpickle them again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from biomedcoop.backbones.catalogue import BACKBONES, CONVERTIBLE, converted_name
from biomedcoop.backbones.registry import find_backbone, is_name, locate
from biomedcoop.backbones.source import read_source, write_source
from biomedcoop.errors import UserError, nearest, notify
from biomedcoop.hub.files import HubFile, sha256
from biomedcoop.output import check_new_file, explain, new_file

if TYPE_CHECKING:
    from torch import Tensor


def convert(name_or_path: str | Path, *, remove_old: bool = False) -> list[Path]:
    """Write the tensors of ``.bin``, ``.pth`` and ``.pt`` files as safetensors beside them, and compare both bit by bit.

    ``open_clip_pytorch_model.bin`` becomes ``open_clip_model.safetensors``, ``pytorch_model.bin`` becomes ``model.safetensors``,
    and any other file keeps its name with another ending. The loaders prefer the new file; the fingerprint of the backbone stays.

    Args:
        name_or_path: a file, a folder whose files are all converted, or the name of a backbone.
        remove_old: remove each old file once its tensors are safe in the new one.

    Returns:
        The new files.

    Raises:
        UserError: nothing to convert, a file that holds more than tensors, another file of the new name, a full disk.
    """
    path = Path(name_or_path)
    if is_name(str(name_or_path)):
        path = locate(str(name_or_path)) or path
    if not path.exists():
        if is_name(str(name_or_path)):
            find_backbone(str(name_or_path))  # it is not here, and the line says how to get it
        near = nearest(str(name_or_path), BACKBONES)
        raise UserError(f"{path}: neither a backbone nor a file nor a folder; {near}")
    if str(name_or_path) in BACKBONES and not BACKBONES[str(name_or_path)].sources:
        raise UserError(f"'{name_or_path}' comes with this package as safetensors, so there is nothing to convert")
    endings = ", ".join(CONVERTIBLE)
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in CONVERTIBLE and file.is_file())
        if not files:
            raise UserError(f"{path}: it holds no {endings} file, so there is nothing to convert")
    elif path.suffix not in CONVERTIBLE:
        raise UserError(f"{path}: only {endings} files are converted; give one, or a folder of them")
    return [_convert(file, remove_old) for file in files]


def _convert(file: Path, remove_old: bool) -> Path:
    import torch
    from safetensors.torch import load_file

    from biomedcoop.backbones.checkpoint import read_tensors, write_tensors

    target = file.with_name(converted_name(file.name))
    # tensors that share memory, or are views of larger ones, become their own
    state = {
        key: value.detach().clone(memory_format=torch.contiguous_format) for key, value in read_tensors(file).items()
    }
    if target.exists():
        if (key := _difference(state, read_tensors(target))) is not None:
            raise UserError(f"{target} exists already and differs from {file.name} in '{key}'; remove one of them")
        notify([f"{target} was there already; its tensors are those of {file.name}."])
    else:
        check_new_file(target, overwrite=False)
        with new_file(target) as temporary:
            write_tensors(state, temporary)
            if (key := _difference(state, load_file(temporary))) is not None:
                raise UserError(f"{target}: '{key}' differs after writing; check the disk, and convert {file} again")
    try:
        if known := read_source(file.parent):
            made = HubFile("", "", target.name, "", "", target.stat().st_size, sha256(target))
            write_source(file.parent, {target.name: made, **known})
        if remove_old:
            file.unlink()
    except OSError as error:
        raise explain(file, error) from error
    return target


def _difference(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> str | None:
    """First name whose tensors differ in presence, type, shape or bits (NaN equals itself); None if there is none."""
    import torch

    def bits(tensor: Tensor) -> Tensor:
        return tensor.reshape(-1).view(torch.uint8)

    def same(key: str) -> bool:
        if key not in a or key not in b or (a[key].dtype, a[key].shape) != (b[key].dtype, b[key].shape):
            return False
        return torch.equal(bits(a[key]), bits(b[key]))

    return next((key for key in sorted(a.keys() | b.keys()) if not same(key)), None)
