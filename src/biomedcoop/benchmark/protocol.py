"""A protocol: a TOML file that says which datasets, methods, shots and seeds a benchmark compares.

Everything is checked when the file is read, so that a mistake costs no computing. The protocols of the package stand in
``protocols/``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from biomedcoop.benchmark.protocol_keys import FORMAT, Row, checked
from biomedcoop.errors import UserError, nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OF_REPORT = ("title", "reference", "groups")
"""Keys that no run depends on: the results of a folder stay good when they change."""


@dataclass(frozen=True)
class Protocol:
    """A checked protocol; :meth:`of` makes it from the content of a file.

    Attributes:
        kind: "few-shot", "base-to-novel", "cross-dataset" or "realistic".
        datasets: names in the catalogue or under the data root, paths, or "simulated:…"; for cross-dataset those trained on.
        rows: the methods, then the variants.
        backbones: names, or folders of models.
        shots: training images per class; of a realistic draw, the mean over the classes.
        seeds: one run each; a seed draws the images and orders the batches.
        recipe, recipes: named set of settings, and that of single methods.
        prompts: sentences about the classes, as for ``train``.
        unused_sentences: leave out the sentences of the library that the shipped backbone was trained with.
        reference: name of the row that differences are taken against; None for no row.
        groups: collection of datasets -> its datasets; collections are averaged apart.
        tests: dataset trained on -> datasets tested on, for cross-dataset.
    """

    kind: str
    title: str
    datasets: tuple[str, ...]
    rows: tuple[Row, ...]
    backbones: tuple[str, ...]
    shots: tuple[int, ...]
    seeds: tuple[int, ...]
    recipe: str
    recipes: Mapping[str, str]
    prompts: str
    unused_sentences: bool
    reference: str | None
    groups: Mapping[str, tuple[str, ...]]
    tests: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, content: Mapping[str, Any], where: str = "protocol") -> Protocol:
        """The protocol with this content.

        Args:
            content: the values of a file, by key.
            where: name of the file at the start of error lines; empty for none.

        Raises:
            UserError: an unknown key (the message offers the nearest), a value that cannot be used, or something listed twice.

        Example:
            >>> protocol = Protocol.of({"format": 1, "kind": "few-shot", "datasets": ["busi"], "methods": ["zero-shot"]})
            >>> protocol.shots
            (1, 2, 4, 8, 16)
        """
        try:
            return cls(**checked(content))
        except UserError as error:
            raise UserError(f"{where}: {error}" if where else str(error)) from error

    @classmethod
    def read(cls, name: str | os.PathLike[str], over: Mapping[str, Any] | None = None) -> Protocol:
        """Read a protocol of the package by its name, or a TOML file by its path.

        Args:
            over: keys and values that replace those of the file. What they leave out of the grid is also left out of ``groups``,
                ``tests``, ``recipes``, ``variants`` and ``reference``.

        Raises:
            UserError: there is no such protocol, or see :meth:`of`.

        Example:
            >>> Protocol.read("quick").kind
            'few-shot'
        """
        where, content = _content(name)
        cls.of(content, where)  # the file alone, so that a mistake in it is not taken for one in the options
        return cls.of(_replaced(content, over), "") if over else cls.of(content, where)

    @property
    def digest(self) -> str:
        """SHA-256 of the content without what only the report reads (:data:`OF_REPORT`)."""
        content = {key: value for key, value in self.to_dict().items() if key not in OF_REPORT}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """The content as JSON values, with every default."""
        content: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        rows = content.pop("rows")
        variants = [
            {"name": row["variant"], "method": row["method"], "settings": row["settings"]}
            for row in rows
            if row["variant"]
        ]
        return {
            "format": FORMAT,
            **content,
            "methods": [row["method"] for row in rows if not row["variant"]],
            "variants": variants,
        }

    def recipe_of(self, method: str) -> str:
        """The recipe of a method."""
        return self.recipes.get(method, self.recipe)

    def tested_on(self, dataset: str) -> tuple[str, ...]:
        """The datasets that a classifier trained on ``dataset`` is tested on, its own first."""
        return (dataset, *self.tests.get(dataset, ()))

    @property
    def all_datasets(self) -> tuple[str, ...]:
        """Datasets to train or to test on, each once."""
        return tuple(dict.fromkeys(name for dataset in self.datasets for name in self.tested_on(dataset)))


def shipped() -> dict[str, str]:
    """Protocols of the package: name -> title."""
    folder = resources.files(__package__).joinpath("protocols")
    names = sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml"))
    return {name: str(_content(name)[1]["title"]) for name in names}


def shipped_text(name: str) -> str:
    """The TOML of a protocol of the package.

    Raises:
        UserError: there is none of this name.
    """
    if name not in (known := shipped()):
        raise UserError(f"no protocol '{name}' in the package; {nearest(name, known)}")
    return resources.files(__package__).joinpath("protocols").joinpath(f"{name}.toml").read_text(encoding="utf-8")


def _content(name: str | os.PathLike[str]) -> tuple[str, dict[str, Any]]:
    """How error lines call the file, and its values."""
    text = os.fspath(name)
    inside = resources.files(__package__).joinpath("protocols").joinpath(f"{text}.toml")
    if Path(text).name == text and not text.endswith(".toml") and inside.is_file():
        return f"protocol {text}", tomllib.loads(inside.read_text(encoding="utf-8"))
    if not text.endswith(".toml"):
        raise UserError(f"no protocol '{text}'; {nearest(text, shipped())} (or give the path of a TOML file)")
    try:
        return text, tomllib.loads(Path(text).read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise UserError(f"{text}: cannot be read ({error.strerror or error}); give the path of a protocol") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise UserError(f"{text} is not TOML: {error}; 'biomedcoop benchmark show quick' prints an example") from error


def _replaced(content: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The content with other values, and without what belongs to datasets or methods that are no longer there."""
    new = {**content, **over}
    if not all(isinstance(over[key], (list, tuple)) for key in ("datasets", "methods") if key in over):
        return new  # refused as the file would be
    if "datasets" in over:
        kept = list(over["datasets"])
        new["tests"] = {name: others for name, others in content.get("tests", {}).items() if name in kept}
        groups = {name: [d for d in of if d in kept] for name, of in content.get("groups", {}).items()}
        new["groups"] = {name: of for name, of in groups.items() if of}
    if "methods" in over:
        kept = list(over["methods"])
        new["recipes"] = {name: recipe for name, recipe in content.get("recipes", {}).items() if name in kept}
        new["variants"] = [variant for variant in content.get("variants", ()) if variant["method"] in kept]
        rows = [*kept, *(variant["name"] for variant in new["variants"])]
        if content.get("reference") not in rows:
            new.pop("reference", None)
    return new
