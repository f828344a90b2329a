"""Features of the images of any source, as arrays and as a file for other tools."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from biomedcoop.data.dataset import Dataset
from biomedcoop.data.images.facts import Tally
from biomedcoop.data.images.sources import named_file
from biomedcoop.data.images.stacks import ALL, Reading
from biomedcoop.data.images.windows import AUTO
from biomedcoop.data.readers.listing import list_images, of_dataset
from biomedcoop.data.readers.named import user_path
from biomedcoop.data.tables.writing import PARQUET_ROWS, open_pyarrow
from biomedcoop.display import shown
from biomedcoop.errors import UserError, notify
from biomedcoop.output import check_new_file, new_file
from biomedcoop.progress import ProgressOption, counting
from biomedcoop.version import __version__

if TYPE_CHECKING:
    from biomedcoop.backbones.base import Backbone

SUFFIXES = (".parquet", ".npz")

Texts = tuple[str | None, ...]
"""A text for each image; None where there is none."""


@dataclass(frozen=True, eq=False, repr=False)
class Embeddings:
    """Features of N images.

    Attributes:
        features: raw image features, or their unit vectors; float32 [N, E], NaN in the row of an image that cannot be read.
        keys: name of each image; see :func:`biomedcoop.data.readers.listing.list_images`.
        classes: class of each image; None if no source gives any.
        splits: split of each image; None if no source gives any.
        errors: why an image cannot be read, None for one that can; None if ``skip_bad`` is off.
        about: what made the features: backbone, fingerprint, precision, image_size in px, unit_norm, version of this package.
    """

    features: npt.NDArray[np.float32]
    keys: tuple[str, ...]
    classes: Texts | None
    splits: Texts | None
    errors: Texts | None
    about: dict[str, Any]

    def __repr__(self) -> str:
        images, width = self.features.shape
        return f"Embeddings({images} images, width {width}, backbone={self.about['backbone']!r})"

    @property
    def columns(self) -> dict[str, Sequence[str | None]]:
        """The columns of text, by their names in a file."""
        columns = {"key": self.keys, "class": self.classes, "split": self.splits, "error": self.errors}
        return {name: texts for name, texts in columns.items() if texts is not None}

    @property
    def unreadable(self) -> int:
        """Number of images that cannot be read."""
        return sum(error is not None for error in self.errors or ())

    def write(self, out: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write ``.parquet`` or ``.npz``; the file appears when it is complete.

        Both hold the columns key, class, split and error where there are any, and features. An ``.npz`` holds arrays, an empty text
        for a missing one, and ``about`` as JSON. In Parquet the metadata ``biomedcoop`` is that JSON, what is missing is null, and
        a feature is a list of floats.

        Raises:
            UserError: see :func:`check_embeddings_file`.
        """
        path = user_path(out)
        check_embeddings_file(path, overwrite)
        with new_file(path) as temporary:
            WRITERS[path.suffix.lower()](self, temporary)


def _write_npz(embeddings: Embeddings, path: Path) -> None:
    arrays: dict[str, Any] = {"features": embeddings.features, "about": np.array(json.dumps(embeddings.about))}
    arrays |= {name: np.array([text or "" for text in of], dtype=np.str_) for name, of in embeddings.columns.items()}
    with path.open("xb") as file:
        np.savez(file, **arrays)


def _write_parquet(embeddings: Embeddings, path: Path) -> None:
    parquet = open_pyarrow()
    import pyarrow as pa

    columns = embeddings.columns
    fields = [(name, pa.string()) for name in columns]
    schema = pa.schema([*fields, ("features", pa.list_(pa.float32()))], {"biomedcoop": json.dumps(embeddings.about)})
    with parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, len(embeddings.keys), PARQUET_ROWS):
            part = slice(start, start + PARQUET_ROWS)
            rows = [None if np.isnan(row[0]) else row for row in embeddings.features[part]]
            writer.write_table(pa.table([*(of[part] for of in columns.values()), rows], schema))


WRITERS: dict[str, Callable[[Embeddings, Path], None]] = {".parquet": _write_parquet, ".npz": _write_npz}


def check_embeddings_file(out: Path, overwrite: bool) -> None:
    """Check before long work that :meth:`Embeddings.write` can write a file.

    Raises:
        UserError: the file name ending is unknown, its library is missing, the file exists (unless ``overwrite``), or its folder
            cannot be written to.
    """
    suffix = out.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{out}: features are written to {' or '.join(SUFFIXES)}; choose one of these endings")
    if suffix == ".parquet":
        open_pyarrow(instead=".npz")
    check_new_file(out, overwrite)


def embed(
    source: Dataset | str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    backbone: Backbone | str | os.PathLike[str] = "mini",
    *,
    unit_norm: bool = False,
    skip_bad: bool = False,
    labels: bool = True,
    window: str = AUTO,
    frame: str | int = ALL,
    device: str = "cpu",
    precision: str = "float32",
    progress: ProgressOption = None,
) -> Embeddings:
    """Features of the centre crop of every image of a source; ``biomedcoop embed`` writes them to a file.

    Features are read from the feature store where it has them.

    Args:
        source: a dataset, or one or several folders, files and names; see :func:`biomedcoop.data.readers.listing.list_images`.
        backbone: a loaded backbone, or the name or folder of one.
        unit_norm: divide each feature by its Euclidean norm.
        skip_bad: go on after images that cannot be read.
        labels: False to read folders and tables without their classes and splits.
        window, frame: see :func:`biomedcoop.load_dataset`; not for a dataset.
        device, precision: see :func:`biomedcoop.load_backbone`; not for a loaded backbone.
        progress: see :func:`biomedcoop.fit`.

    Raises:
        UserError: the source cannot be read, or there is no such backbone.
        ImageError: an image cannot be read, unless ``skip_bad``.

    Example:
        >>> import biomedcoop as bc
        >>> found = bc.embed("simulated:breast-ultrasound?train=1&val=0&test=1")
        >>> found.features.shape, found.keys[0], found.classes[0], found.splits[0]
        ((6, 768), 'train/benign_tumor/0000.png', 'benign tumor', 'train')
    """
    from biomedcoop.backbones import load_backbone
    from biomedcoop.backbones.base import Backbone
    from biomedcoop.features.images import encode_readable

    if isinstance(source, Dataset):
        listing = of_dataset(source)
    else:
        reading = Reading(window, str(frame))
        listing = list_images(source if isinstance(source, (list, tuple)) else [source], labels, reading)  # type: ignore[list-item]
    model = backbone
    if not isinstance(model, Backbone):
        model = load_backbone(model, device=device, precision=precision)
    if not isinstance(source, Dataset):  # the notes on a loaded dataset were issued when it was loaded
        notify(listing.notes)
    names = [named_file(image) or key for image, key in zip(listing.images, listing.keys, strict=True)]
    tally = Tally()
    with shown(progress) as tell:
        images = list(zip(listing.images, names, strict=True))
        features, bad = encode_readable(
            model, images, skip_bad=skip_bad, progress=counting(tell, "encoding images"), tally=tally
        )
    notify(tally.notes())
    if unit_norm:
        features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    errors = [bad[i].reason if i in bad else None for i in range(len(images))]
    return Embeddings(
        features,
        tuple(listing.keys),
        tuple(listing.classes) if any(listing.classes) else None,
        tuple(listing.splits) if any(listing.splits) else None,
        tuple(errors) if skip_bad else None,
        {
            "backbone": model.name,
            "fingerprint": model.fingerprint,
            "precision": model.precision,
            "image_size": model.image_size,
            "unit_norm": unit_norm,
            "version": __version__,
        },
    )
