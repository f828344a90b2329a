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
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from biomedcoop.errors import UserError, nearest
from biomedcoop.tasks import options

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FORMAT = 1

DEFAULT_SHOTS = {
    "few-shot": (1, 2, 4, 8, 16),
    "base-to-novel": (16,),
    "cross-dataset": (16,),
    "realistic": (1, 2, 4, 8, 16),
}
"""Kinds of protocols, and the shots of each where the file names none."""


@dataclass(frozen=True)
class Row:
    """A row of the tables: a method, or a variant of it.

    Attributes:
        method: name of the method.
        variant: name of the variant; None for the method as its recipe has it.
        settings: single settings that override those of the recipe.
    """

    method: str
    variant: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The variant's name, or the method's."""
        return self.variant or self.method


@dataclass(frozen=True)
class Protocol:
    """A checked protocol; :meth:`of` makes it from the content of a file.

    Attributes:
        kind: "few-shot", "base-to-novel", "cross-dataset" or "realistic".
        datasets: names in the catalogue or under the data root, paths, or "simulated:…"; for cross-dataset those trained on.
        rows: the methods, then the variants.
        backbones: names, or folders in open_clip layout.
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
            return cls(**_checked(content))
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
        """SHA-256 of the content without the title."""
        content = {key: value for key, value in self.to_dict().items() if key != "title"}
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
        raise UserError(f"{text} is not TOML: {error}; see 'biomedcoop benchmark list' for examples") from error


def _replaced(content: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The content with other values, and without what belongs to datasets or methods that are no longer there."""
    new = {**content, **over}
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


def _checked(content: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a protocol from the content of a file."""
    for key in content:
        if key not in KEYS:
            raise UserError(f"no key '{key}'; {nearest(key, KEYS)}")
    if content.get("format") != FORMAT:
        raise UserError(f"format={content.get('format')!r} must be {FORMAT}, the only one that this version reads")
    kind = content.get("kind")
    if kind not in DEFAULT_SHOTS:
        raise UserError(f"kind={kind!r} must be one of {', '.join(DEFAULT_SHOTS)}")
    values = {key: check(key, content[key]) for key, check in CHECKS.items() if key in content}
    methods, variants = values.pop("methods", ()), values.pop("variants", ())
    rows = (*(Row(method) for method in methods), *variants)
    if not rows:
        raise UserError('no methods are named; give methods = ["biomedcoop"] or variants')
    _refuse_doubles("rows", [row.name for row in rows])
    tests = values.pop("tests", {})
    datasets = values.pop("datasets", tuple(tests))
    _check_tests(kind, datasets, tests)
    _check_recipes(values.get("recipe", "paper"), values.get("recipes", {}), rows)
    _check_groups(values.get("groups", {}), datasets)
    reference = values.get("reference")
    if reference is not None and reference not in (names := [row.name for row in rows]):
        raise UserError(f"reference '{reference}' is none of the methods and variants; {nearest(reference, names)}")
    defaults: dict[str, Any] = {
        "title": kind,
        "backbones": ("mini",),
        "shots": DEFAULT_SHOTS[kind],
        "seeds": (1, 2, 3),
        "recipe": "paper",
        "recipes": {},
        "prompts": "auto",
        "unused_sentences": False,
        "reference": None,
        "groups": {},
    }
    return {**defaults, **values, "kind": kind, "datasets": datasets, "rows": rows, "tests": tests}


def _check_tests(kind: str, datasets: tuple[str, ...], tests: Mapping[str, tuple[str, ...]]) -> None:
    if kind != "cross-dataset":
        if tests:
            raise UserError(f'[tests] belongs to kind = "cross-dataset", not to {kind}; remove one of them')
        if not datasets:
            raise UserError('no datasets are named; give datasets = ["busi"]')
        return
    for name in datasets:
        if name not in tests:
            raise UserError(f"[tests] does not say what a classifier of {name} is tested on; add {name} = [...]")
    for name, others in tests.items():
        if name not in datasets:
            raise UserError(f"[tests] names {name}, which is not in datasets; add it there or leave datasets out")
        if name in others:
            raise UserError(f"[tests] {name}: its own test images are always scored; name other datasets")
    if not tests:
        raise UserError("no datasets are named; give [tests] with DATASET = [datasets to test on]")


def _check_recipes(recipe: str, recipes: Mapping[str, str], rows: Collection[Row]) -> None:
    from biomedcoop.methods import get_method

    used = {row.method for row in rows}
    for method in recipes:
        if method not in used:
            raise UserError(f"[recipes] names '{method}', which is not compared; {nearest(method, used)}")
    for row in rows:
        try:
            get_method(row.method).settings(row.settings, recipes.get(row.method, recipe))
        except UserError as error:
            raise UserError(f"variant '{row.name}': {error}" if row.variant else str(error)) from error


def _check_groups(groups: Mapping[str, tuple[str, ...]], datasets: Collection[str]) -> None:
    listed = [name for of in groups.values() for name in of]
    for name in listed:
        if name not in datasets:
            raise UserError(f"[groups] names '{name}', which is not in datasets; {nearest(name, datasets)}")
    _refuse_doubles("[groups]", listed)
    if groups and (left := [name for name in datasets if name not in listed]):
        raise UserError(f"[groups] leaves out '{left[0]}'; put every dataset into one collection")


def _refuse_doubles(what: str, items: Collection[Any]) -> None:
    seen: set[Any] = set()
    for item in items:
        if item in seen:
            raise UserError(f"{what}: {item!r} is there twice; give each once")
        seen.add(item)


Check = Callable[[str, Any], Any]


def _listed(check: Check, example: str) -> Check:
    """A check of a list without repeats; ``check`` is called with each element."""

    def of(key: str, value: Any) -> tuple[Any, ...]:
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Collection) or not value:
            raise UserError(f"{key}={value!r} must be a list, e.g. {key} = [{example}]")
        items = tuple(check(key, item) for item in value)
        _refuse_doubles(key, items)
        return items

    return of


def _table(check: Check, example: str) -> Check:
    """A check of a table; ``check`` is called with each value."""

    def of(key: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise UserError(f"[{key}] must be a table with lines such as {example}")
        return {name: check(f"[{key}] {name}", item) for name, item in value.items()}

    return of


def _name(key: str, value: Any) -> str:
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or not text.strip() or not text.isprintable():
        raise UserError(f"{key}={value!r} must be a name in quotes")
    return text


def _variants(key: str, value: Any) -> tuple[Row, ...]:
    if (
        isinstance(value, Mapping)
        or not isinstance(value, Collection)
        or not all(isinstance(v, Mapping) for v in value)
    ):
        raise UserError(f"{key} must be tables: [[{key}]] with name, method and settings")
    return tuple(_variant(one) for one in value)


def _variant(content: Mapping[str, Any]) -> Row:
    keys = ("name", "method", "settings")
    for key in content:
        if key not in keys:
            raise UserError(f"[[variants]] no key '{key}'; {nearest(key, keys)}")
    for key in keys:
        if key not in content:
            raise UserError(f"[[variants]] without {key}; give name, method and settings")
    name = _name("[[variants]] name", content["name"])
    if "/" in name:
        raise UserError(
            f"[[variants]] name '{name}' holds a '/', which separates the parts of a run's name; leave it out"
        )
    return Row(options.method("method", content["method"]), name, options.settings("settings", content["settings"]))


def _shots(_: str, value: Any) -> int:
    return options.whole_number(16, 1)("shots", value)


def _seed(_: str, value: Any) -> int:
    return options.seed("seeds", value)


_names = _listed(_name, '"busi"')

CHECKS: Mapping[str, Check] = {
    "title": _name,
    "datasets": _names,
    "methods": _listed(options.method, '"biomedcoop"'),
    "variants": _variants,
    "backbones": _listed(options.backbone, '"mini"'),
    "shots": _listed(_shots, "1, 16"),
    "seeds": _listed(_seed, "1, 2, 3"),
    "recipe": options.recipe,
    "recipes": _table(options.recipe, 'coop = "fast"'),
    "prompts": options.prompts,
    "unused_sentences": options.yes_or_no,
    "reference": _name,
    "groups": _table(_names, 'seen = ["btmri"]'),
    "tests": _table(_names, 'btmri = ["brisc"]'),
}
"""The check of each key; a list refuses what it holds twice."""

KEYS = ("format", "kind", *CHECKS)
