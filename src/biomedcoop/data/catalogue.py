"""The eleven datasets of the BiomedCoOp benchmark: names, label order, published split files.

Everything is data (`catalogue.json`); a dataset is one entry there. MedMNIST class names follow MedMNIST v2 (Scientific Data
2023), in the words of a prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class CatalogueEntry:
    """One benchmark dataset.

    Attributes:
        name: name on the command line ("busi"); ``folder``: name of its published folder ("BUSI").
        class_names: in label order.
        counts: images per split in the published split file.
        split_sha256: of the published split file, or None where it was not available.
        archive, hub_dataset: file and Hugging Face dataset that hold the images.
    """

    name: str
    folder: str
    title: str
    aliases: tuple[str, ...]
    modality: str
    organ: str
    class_names: tuple[str, ...]
    counts: Mapping[str, int]
    split_file: str
    split_sha256: str | None
    archive: str
    hub_dataset: str
    note: str = ""

    @property
    def all_names(self) -> tuple[str, ...]:
        """Every name of the dataset, the most specific first."""
        return (self.name, self.folder, *self.aliases)


def entries() -> tuple[CatalogueEntry, ...]:
    """All benchmark datasets, by name."""
    return _entries()


def find(name: str, class_names: Sequence[str] | None = None) -> CatalogueEntry | None:
    """The entry with this name, folder or alias; case, ``-``, ``_`` and space make no difference.

    Args:
        name: e.g. "busi", "HAM10000", "covid_cxr3".
        class_names: if not None, all of them must be classes of the entry: a folder called "retina" with other classes is not
            the benchmark dataset RETINA.
    """
    wanted = _fold(name)
    for entry in _entries():
        if wanted in map(_fold, entry.all_names):
            return entry if class_names is None or set(class_names) <= set(entry.class_names) else None
    return None


def medmnist_class_names(name: str) -> tuple[str, ...] | None:
    """Class names in label order for a MedMNIST file name without suffix ("octmnist", "octmnist_224"), else None."""
    names = _content()["medmnist_class_names"].get(medmnist_name(name))
    return None if names is None else tuple(names)


def medmnist_name(stem: str) -> str:
    """A MedMNIST file name without its size: "OctMNIST_224" -> "octmnist"; other names are only lower-cased."""
    return re.sub(r"(?<=mnist)_(28|64|128|224)$", "", stem.lower())


def _fold(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip()).casefold()


@cache
def _content() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("catalogue.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


@cache
def _entries() -> tuple[CatalogueEntry, ...]:
    return tuple(_entry(dict(raw)) for raw in _content()["datasets"])


def _entry(raw: dict[str, Any]) -> CatalogueEntry:
    for key in ("aliases", "class_names"):
        raw[key] = tuple(raw[key])
    return CatalogueEntry(**raw)
