"""The keys of a protocol file: the check of each, and of what they say together."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from biomedcoop.errors import UserError, nearest
from biomedcoop.tasks import options

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


def checked(content: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a protocol from the content of a file."""
    for key in content:
        if key not in KEYS:
            raise UserError(f"no key '{key}'; {nearest(key, KEYS)}")
    for key, example in (("format", FORMAT), ("kind", '"few-shot"')):
        if key not in content:
            raise UserError(f"there is no {key}; add the line {key} = {example}")
    if content["format"] != FORMAT:
        raise UserError(f"format={content['format']!r} must be {FORMAT}, the only one that this version reads")
    kind = content["kind"]
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
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Collection):
            raise UserError(f"{key}={value!r} must be a list, e.g. {key} = [{example}]")
        if not value:
            raise UserError(f"{key} is an empty list; give at least one, e.g. {key} = [{example}]")
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
