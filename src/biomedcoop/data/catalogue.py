"""The eleven datasets of the BiomedCoOp benchmark, and six external sites: names, label order, published split files, caveats.

Everything is data (`catalogue.json`); a dataset is one entry there. MedMNIST class names follow MedMNIST v2 (Scientific Data
2023), in the words of a prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class CatalogueEntry:
    """One published dataset.

    Attributes:
        name: name on the command line ("busi"); ``folder``: name of its published folder ("BUSI").
        class_names: in label order.
        counts: images per split in the published split file, as far as known.
        class_counts: the same per class, in label order; empty where it is not known.
        split_sha256: of the published split file, or None where it is not known.
        split_repository: GitHub repository that holds the split file.
        archive, hub_dataset: file and Hugging Face dataset that hold the images.
        licence: of the images; "not stated" where no source names one.
        caveat: known leakage between the splits, or what else makes results look better than they are.
        tests: for an external site the benchmark dataset that a classifier is trained on; None for a benchmark dataset. Classes
            of the same name are the same.
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
    split_repository: str
    archive: str
    hub_dataset: str
    licence: str
    caveat: str
    class_counts: Mapping[str, Sequence[int]] = field(default_factory=dict)
    tests: str | None = None
    note: str = ""

    @property
    def kind(self) -> str:
        """ "benchmark" or "external"."""
        return "external" if self.tests else "benchmark"

    @property
    def all_names(self) -> tuple[str, ...]:
        """Every name of the dataset, the most specific first."""
        return (self.name, self.folder, *self.aliases)

    @property
    def images(self) -> str:
        """Images per split in words: "389 train, 155 val, 236 test"."""
        return ", ".join(f"{count:,} {split}" for split, count in self.counts.items())

    @property
    def card(self) -> dict[str, str]:
        """What a reader of results must know: title -> text, in the order to print."""
        numbers = list(self.class_counts.values())
        order = f" ({' / '.join(self.class_counts)})" if numbers else ""
        classes = [
            f"{name} ({' / '.join(f'{counts[label]:,}' for counts in numbers)})" if numbers else name
            for label, name in enumerate(self.class_names)
        ]
        card = {
            "name": f"{self.name}: {self.title}",
            "kind": f"external site for classifiers trained on {self.tests}" if self.tests else "benchmark dataset",
            "other names": ", ".join(self.all_names[1:]),
            "images": f"{self.modality} of {self.organ}: {self.images}",
            f"classes{order}": "; ".join(classes),
            "caveat": self.caveat,
            "licence": self.licence,
            "archive": f"{self.archive} in the Hugging Face dataset {self.hub_dataset}",
            "split file": f"{self.split_file}, SHA-256 {self.split_sha256 or 'not known'}",
            "note": self.note,
        }
        return {title: text for title, text in card.items() if text}


def entries() -> tuple[CatalogueEntry, ...]:
    """All benchmark datasets, by name."""
    return tuple(entry for entry in _entries() if entry.kind == "benchmark")


def external_sites(tests: str | None = None) -> tuple[CatalogueEntry, ...]:
    """The external sites: published test sets of another origin with classes of a benchmark dataset.

    Args:
        tests: name of a benchmark dataset; None gives the sites of all.

    Example:
        >>> from biomedcoop.data.catalogue import external_sites
        >>> [site.name for site in external_sites("busi")]
        ['buid', 'busbra', 'udiat']
    """
    return tuple(entry for entry in _entries() if entry.tests and tests in (None, entry.tests))


def known_names() -> list[str]:
    """The names of all datasets of the catalogue and all MedMNIST files."""
    return list(dict.fromkeys([*(entry.name for entry in _entries()), *_content()["medmnist_class_names"]]))


def find(name: str, class_names: Sequence[str] | None = None) -> CatalogueEntry | None:
    """The entry with this name, folder or alias; case, ``-``, ``_`` and space make no difference.

    Args:
        name: e.g. "busi", "HAM10000", "covid_cxr3".
        class_names: if not None, all of them must be classes of the entry: a folder called "retina" with other classes is not
            the benchmark dataset RETINA.

    Example:
        >>> from biomedcoop.data.catalogue import find
        >>> busi = find("BUSI")
        >>> busi.images, busi.licence
        ('389 train, 155 val, 236 test', 'unverified; the article is CC BY 4.0, the data page states none')
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
