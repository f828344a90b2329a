"""Datasets that are one file: a module of this folder for each format, found by themselves."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from biomedcoop.data.dataset import Dataset


@cache
def file_readers() -> dict[str, Callable[..., Dataset]]:
    """The ``READERS`` of every module in this folder: lower-case file name ending -> reader.

    A reader takes the path and ``for_training``: False where a classifier is only tested, so that one class is enough.
    """
    modules = (import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__))
    return {suffix: reader for module in modules for suffix, reader in getattr(module, "READERS", {}).items()}
