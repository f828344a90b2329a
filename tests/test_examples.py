"""The examples in docstrings do what they say, on simulated data and without a network."""

from __future__ import annotations

import doctest
import inspect
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import biomedcoop


def examples() -> Iterator[doctest.DocTest]:
    """Docstrings of the package that hold an example."""
    for module in pkgutil.walk_packages(biomedcoop.__path__, "biomedcoop."):
        if not module.name.endswith("__main__"):
            yield from (t for t in doctest.DocTestFinder().find(import_module(module.name)) if t.examples)


@pytest.mark.parametrize("example", list(examples()), ids=lambda example: example.name)
def test_an_example_does_what_it_says(
    example: doctest.DocTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    doctest.DocTestRunner().run(example, out=told.append)
    assert told == [], "".join(told)


def test_every_public_function_has_an_example() -> None:
    public = {name: getattr(biomedcoop, name) for name in biomedcoop.__all__}
    functions = {name: value for name, value in public.items() if inspect.isfunction(value)}
    methods = {
        f"Classifier.{name}": value
        for name, value in vars(biomedcoop.Classifier).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }
    without = {name for name, value in {**functions, **methods}.items() if ">>> " not in (value.__doc__ or "")}
    assert without == set()
