"""Masks of lesions: drawn with simulated images, files beside images (as BUSI has them), or a folder of masks with equal names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.reading import read_image
from biomedcoop.data.readers.folder_names import image_of_mask, is_visible, masks_by_image
from biomedcoop.data.readers.walk import is_image
from biomedcoop.data.simulate.load import PREFIX, draw_masks
from biomedcoop.errors import UserError

Mask = npt.NDArray[np.bool_]

FOLDER = "masks"
"""Folder of masks in that of a dataset."""

_FEW_VALUES = 16


def find_masks(
    data: Dataset, folder: str | os.PathLike[str] | None = None, places: Iterable[int] | None = None
) -> list[Mask | None]:
    """The lesion mask of each image of a dataset.

    Without ``folder``, masks of simulated images in memory are drawn; those of files are looked for beside each image
    (``1_mask.png``, ``1_mask_1.png``: several are united), and in the folder ``masks`` of the dataset under the same relative path.

    A mask under the relative path of an image, with any ending and with or without ``_mask``, belongs to that image. A mask that
    lies flat, or in a folder without images of the dataset, belongs to the one image of its name. Other images have no lesion.

    Args:
        data: images of one task.
        folder: holds masks under the relative paths of the images, or under their names.
        places: of the images whose masks are read; by default all. Names are compared with those of all images.

    Returns:
        For each of these images its mask bool [H, W] at the image's own resolution, or None where there is no mask.

    Raises:
        UserError: the folder does not exist or holds no mask of any image, a name is ambiguous, or the images are in memory.
        ImageError: a mask cannot be read.

    Example:
        >>> import biomedcoop as bc
        >>> from biomedcoop.data.masks import find_masks
        >>> data = bc.load_dataset("simulated:kidney-ct?train=1&val=0&test=0")
        >>> [mask.shape for mask in find_masks(data)]
        [(224, 224), (224, 224), (224, 224), (224, 224)]
    """
    if folder is not None and not Path(folder).is_dir():
        raise UserError(f"{folder}: no such folder; give the folder that holds the masks")
    if folder is None and data.simulated and data.root is None and data.name.startswith(PREFIX):
        return list(draw_masks(data if places is None else data.select(list(places))))
    places = range(len(data)) if places is None else list(places)
    images = [image for image in data.images if isinstance(image, Path)]
    if len(images) < len(data):
        if folder is None:
            return [None] * len(places)
        raise UserError(f"{data.name}: images in memory have no file names to find masks by; give masks as arrays")
    if folder is not None:
        files = _files_in(data, Path(folder))
    elif data.root is not None and (data.root / FOLDER).is_dir():
        files = _files_in(data, data.root / FOLDER)
    else:
        beside = cache(_beside)
        files = [beside(path.parent).get(path.stem, []) for path in images]
    return [_united(files[place]) if files[place] else None for place in places]


def read_mask(path: Path) -> Mask:
    """One mask file as bool [H, W], True inside the lesion.

    A file of few grey levels (0 and 1, 0 and 255, numbers of lesions) holds True wherever it is not 0. In one of many levels, as a
    lossy format leaves them, True is whatever is above half of the largest.

    Raises:
        ImageError: the file cannot be read.
    """
    values = np.asarray(read_image(path)).max(axis=2)
    return np.asarray(values > (0 if len(np.unique(values)) <= _FEW_VALUES else values.max() / 2))


def check_masks(masks: Sequence[Mask | None], sizes: Sequence[tuple[int, int]], names: Sequence[str]) -> None:
    """Raise UserError unless each mask has the size (height, width) of its image."""
    if len(masks) != len(sizes):
        raise UserError(f"{len(masks)} masks for {len(sizes)} images; give one for each image, or None")
    for mask, (height, width), name in zip(masks, sizes, names, strict=True):
        if mask is not None and mask.shape != (height, width):
            have = " × ".join(map(str, mask.shape[::-1]))
            raise UserError(
                f"the mask of {name} is {have} px, the image {width} × {height} px; give masks of the image's own size"
            )


def _united(paths: Sequence[Path]) -> Mask:
    first, *others = (read_mask(path) for path in paths)
    for path, other in zip(paths[1:], others, strict=True):
        check_masks([other], [(first.shape[0], first.shape[1])], [path.name])
        first = first | other
    return first


def _beside(folder: Path) -> dict[str, list[Path]]:
    """By the stem of an image in ``folder``, the masks beside it."""
    files = {Path(name).stem: folder / name for name in sorted(os.listdir(folder)) if is_image(name)}  # noqa: PTH208
    return {image: [files[mask] for mask in masks] for image, masks in masks_by_image(list(files)).items()}


def _files_in(data: Dataset, folder: Path) -> list[list[Path]]:
    """The files in ``folder`` that are masks of each image."""
    images = [Path(key).with_suffix("") for key in data.keys]
    held = {image.parent.as_posix().casefold() for image in images} - {"."}
    by_path: dict[str, list[Path]] = {}
    by_stem: dict[str, list[Path]] = {}
    for path in sorted(path for path in folder.rglob("*") if is_image(path.name) and is_visible(path.name)):
        stem = image_of_mask(path.stem) or path.stem.casefold()
        place = path.relative_to(folder).parent
        by_path.setdefault((place / stem).as_posix().casefold(), []).append(path)
        # a mask in a folder of images, of another split too, is of an image in that folder, whatever images elsewhere are called
        mirrored = place.as_posix().casefold() in held or (data.root is not None and (data.root / place).is_dir())
        if place == Path() or not mirrored:
            by_stem.setdefault(stem, []).append(path)
    stems = Counter(image.name.casefold() for image in images)
    found = []
    for image in images:
        stem = image.name.casefold()
        if (paths := by_path.get(image.as_posix().casefold())) is None and (paths := by_stem.get(stem)):
            holders = {path.parent for path in paths}
            if stems[stem] > 1 or len(holders) > 1:
                raise UserError(
                    f"{folder}: masks of several images are called {image.name!r}; put masks under the images' relative paths, "
                    f"e.g. {image.as_posix()}.png"
                )
        found.append(paths or [])
    if not any(found):
        raise UserError(
            f"{folder}: no file in it has the name of an image of {data.name}, e.g. {images[0]}; rename the masks"
        )
    return found
