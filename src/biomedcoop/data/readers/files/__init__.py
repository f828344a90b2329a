"""Readers for datasets in one file; each module of this folder defines the readers of a format."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from biomedcoop.data.dataset import Dataset


@cache
def file_readers() -> dict[str, Callable[..., Dataset]]:
    """The ``READERS`` of every module in this folder: lower-case file name ending -> reader.

    A reader takes the path, ``for_training`` (False is for test data, where one class is enough), and ``reading`` (how files with
    windows and frames are read).
    """
    modules = (import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__))
    return {suffix: reader for module in modules for suffix, reader in getattr(module, "READERS", {}).items()}
