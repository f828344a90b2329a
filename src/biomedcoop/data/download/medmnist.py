"""MedMNIST+ files (28, 64, 128 and 224 pixels), which the package ``medmnist`` downloads.

Source: Yang et al., MedMNIST v2, Scientific Data 2023.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from biomedcoop.data.catalogue import medmnist_name
from biomedcoop.data.download.check import DatasetCheck
from biomedcoop.data.readers.files.npz import read_npz
from biomedcoop.errors import UserError
from biomedcoop.output import check_writable, new_file


def download_medmnist(name: str, root: Path, offline: bool = False) -> DatasetCheck:
    """Put a MedMNIST file into the data folder, where it is found by its name.

    Args:
        name: file name without ending: "pathmnist" (28 pixels) or "pathmnist_224".

    Raises:
        UserError: the package is missing or too old, or the download failed.
    """
    target = root / f"{name}.npz"
    if target.is_file():
        return DatasetCheck(name, target, len(read_npz(target)), (), "already there")
    if offline:
        raise UserError(f"{name}.npz is not in {root}, and without the network it cannot be downloaded; put it there")
    try:
        package = import_module("medmnist")
    except ImportError as error:
        raise UserError(
            f"{name} is a MedMNIST file, and the package that downloads it is not installed; run 'pip install medmnist', or put "
            f"{target.name} into {root}"
        ) from error
    flag = medmnist_name(name)
    size = int(name.removeprefix(f"{flag}_")) if name != flag else 28
    check_writable(root)
    with new_file(target) as temporary:
        try:
            dataset = getattr(package, package.INFO[flag]["python_class"])
            dataset(split="train", download=True, size=size, root=str(temporary.parent))
        except (KeyError, AttributeError, TypeError) as error:
            raise UserError(f"this version of the package medmnist cannot give {name} ({error}); update it") from error
        except (OSError, RuntimeError) as error:  # it reports a failed download as RuntimeError
            reason = " ".join(str(error).split())
            raise UserError(f"{name} cannot be downloaded with the package medmnist: {reason}; try again") from error
        (temporary.parent / (f"{flag}.npz" if size == 28 else f"{flag}_{size}.npz")).replace(temporary)
    return DatasetCheck(name, target, len(read_npz(target)), (), "downloaded")
