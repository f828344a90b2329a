"""Methods by name: those of this folder, and those of plug-ins."""

from __future__ import annotations

from biomedcoop.errors import UserError, nearest
from biomedcoop.methods.base import REGISTRY, Method, import_own
from biomedcoop.methods.plugins import load_installed

_searched = False


def all_methods() -> dict[str, Method]:
    """Every method by name; the first call imports all files of this folder and all installed plug-ins."""
    global _searched
    if not _searched:
        import_own()
        _searched = True  # before the plug-ins, which may look a method up themselves
        load_installed()
    return dict(sorted(REGISTRY.items()))


def get_method(name: str) -> Method:
    """The method called ``name``.

    Raises:
        UserError: there is no such method; the message offers near names.
    """
    methods = all_methods()
    if name not in methods:
        raise UserError(f"no method '{name}'; {nearest(name, methods)}")
    return methods[name]
