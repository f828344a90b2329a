"""Methods by name: those of this folder, and those of plug-ins."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from biomedcoop.backbones.registry import has_text_tower
from biomedcoop.errors import UserError, nearest
from biomedcoop.methods.base import REGISTRY, Method, import_own
from biomedcoop.methods.plugins import load_installed

if TYPE_CHECKING:
    from biomedcoop.backbones.base import Backbone

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


def can_run(method: Method, backbone: Backbone | str | os.PathLike[str]) -> bool:
    """Whether a backbone has the towers that a method needs.

    Args:
        backbone: a loaded backbone, or the name or folder of one.

    Raises:
        UserError: the folder holds no backbone.
    """
    return not method.abilities.needs_text_tower or has_text_tower(backbone)


def check_towers(method: Method, backbone: Backbone | str | os.PathLike[str]) -> None:
    """Refuse a method that encodes texts on a backbone without a text tower.

    Raises:
        UserError: the message names the methods that work.
    """
    if can_run(method, backbone):
        return
    name = Path(backbone).name if isinstance(backbone, (str, os.PathLike)) else backbone.name
    able = [other.name for other in all_methods().values() if not other.abilities.needs_text_tower]
    raise UserError(
        f"{method.name} encodes texts, but the backbone '{name}' has no text tower; choose the method {' or '.join(able)}, or "
        "another backbone"
    )
