"""The package timm where no torchvision fits to torch: timm imports names of its data part that no model needs.

Beside a torch for CPUs alone, the torchvision of the package index cannot be imported. ``timm`` is then imported beside a stand-in
with those names, which is gone afterwards.
"""

from __future__ import annotations

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class Names(type):
    """A class in which every name is a text, as the members of an enumeration may be."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class StandIn(ModuleType):
    """A module of torchvision in which every name is a class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Names(name, (), {})


class Finder(MetaPathFinder, Loader):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name.partition(".")[0] == "torchvision" else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def import_timm() -> ModuleType:
    """The real package, with a torchvision that fits or beside the stand-in."""
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError):
        finder = Finder()
        sys.meta_path.insert(0, finder)
        try:
            return importlib.import_module("timm")
        finally:
            sys.meta_path.remove(finder)
            for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
                del sys.modules[name]
    return importlib.import_module("timm")
