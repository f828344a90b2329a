"""Reader for MedMNIST-style archives: ``train_images``, ``train_labels``, ``val_…``, ``test_…`` in one file."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from biomedcoop.data.catalogue import medmnist_class_names, medmnist_name
from biomedcoop.data.dataset import SPLITS, Dataset
from biomedcoop.data.images.stacks import Reading
from biomedcoop.data.names import check_class_names, clean_class_name
from biomedcoop.data.readers.rows import names_of_numbers
from biomedcoop.errors import UserError

_READ_ERRORS = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)


def read_npz(file: Path, for_training: bool = True, reading: Reading | None = None) -> Dataset:
    """Read the images of all splits into one array; nothing in the file is ever unpickled.

    Images are uint8 or uint16 [n, H, W], [n, H, W, 3] (red, green, blue) or [n, H, W, 4] (with alpha), labels integers [n] or
    [n, 1]. Class names are those of MedMNIST for its file names, else the optional array ``class_names``, else "class 0",
    "class 1", ….

    Args:
        file: the archive.
        for_training: False for test data: one class is enough, and labels may have gaps.

    Raises:
        UserError: the file is not such an archive, holds volumes or several labels per image, or a label has no class name.
    """
    arrays = _load(file)
    images, labels, splits, keys = [], [], [], []
    for split in SPLITS:
        if f"{split}_images" not in arrays:
            continue
        pixels = _checked_images(arrays[f"{split}_images"], f"{file}: {split}_images")
        numbers = _checked_labels(arrays.get(f"{split}_labels"), len(pixels), f"{file}: {split}_labels")
        if len(pixels):
            images.append(pixels)
            labels.append(numbers)
            splits.append(np.full(len(pixels), split, dtype="<U5"))
            keys += [f"{split}[{index}]" for index in range(len(pixels))]
    if not images:
        raise UserError(f"{file}: it holds no images; expected arrays train_images, train_labels, … as in MedMNIST")
    kinds = {(pixels.dtype.name, pixels.shape[1:]) for pixels in images}
    if len(kinds) > 1:
        raise UserError(f"{file}: the splits hold images of different type or size; convert them to one type and size")
    all_labels = np.concatenate(labels)
    class_names, notes = _class_names(file, arrays.get("class_names"), all_labels, for_training)
    check_class_names(class_names, file, for_training)
    if int(all_labels.min()) < 0 or int(all_labels.max()) >= len(class_names):
        wrong = next(label for label in all_labels.tolist() if not 0 <= label < len(class_names))
        raise UserError(
            f"{file}: label {wrong} is not in the class list of {len(class_names)} names; labels run from 0 to "
            f"{len(class_names) - 1}"
        )
    return Dataset(
        name=medmnist_name(file.stem) if medmnist_class_names(file.stem) else file.stem,
        class_names=class_names,
        images=np.concatenate(images),
        keys=tuple(keys),
        labels=all_labels,
        splits=np.concatenate(splits),
        notes=notes,
    )


def _load(file: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(file, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it is a single array")
            wanted = [name for name in archive.files if name == "class_names" or name.endswith(("_images", "_labels"))]
            return {name: archive[name] for name in wanted}
    except MemoryError as error:
        raise UserError(f"{file}: its arrays do not fit into memory; write the images to files instead") from error
    except _READ_ERRORS as error:
        raise UserError(f"{file}: not a readable .npz archive of plain arrays; download or save it again") from error


def _checked_images(pixels: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    if pixels.ndim == 4 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if pixels.dtype.type not in (np.uint8, np.uint16):
        raise UserError(f"{where} are {pixels.dtype}; images must be uint8 or uint16")
    if pixels.ndim != 3 and not (pixels.ndim == 4 and pixels.shape[-1] in (3, 4)):
        raise UserError(
            f"{where} have the shape {list(pixels.shape)}; images must be [n, H, W], [n, H, W, 3] (red, green, blue) or "
            "[n, H, W, 4] (with alpha)"
        )
    if 0 in pixels.shape[1:]:
        raise UserError(f"{where} have the shape {list(pixels.shape)}: images without pixels; save them again")
    return pixels


def _checked_labels(labels: npt.NDArray[Any] | None, count: int, where: str) -> npt.NDArray[np.int64]:
    if labels is None:
        raise UserError(f"{where} is missing; every split needs images and labels")
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise UserError(f"{where} have {labels.shape[1]} columns; several labels per image are not supported, give one")
    if labels.dtype.kind not in "iu" or labels.shape not in ((count,), (count, 1)):
        raise UserError(f"{where} are {labels.dtype} {list(labels.shape)}; expected integers [{count}] or [{count}, 1]")
    return labels.reshape(-1).astype(np.int64)


def _class_names(
    file: Path, stored: npt.NDArray[Any] | None, labels: npt.NDArray[np.int64], for_training: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Class names in label order, and notes."""
    known = medmnist_class_names(file.stem)
    if known is not None:
        return known, ()
    if stored is not None:
        if stored.dtype.kind != "U" or stored.ndim != 1:
            raise UserError(f"{file}: class_names are {stored.dtype} {list(stored.shape)}; expected text [C]")
        return tuple(clean_class_name(str(name)) for name in stored), ()
    names = names_of_numbers(np.unique(labels).tolist(), file, for_training)
    note = f"{file.name} has no class names; add an array class_names, because prompts are made of class names"
    return names, (note,)


READERS = {".npz": read_npz}
