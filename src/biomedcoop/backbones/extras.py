"""Packages that only some backbones need: imported, or one line that says how to get them."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from biomedcoop.errors import UserError


def imported(module: str, package: str, extra: str, who: str) -> ModuleType:
    """A package of an extra of this one.

    Args:
        module: its name in Python.
        package: its name for pip.
        extra: the extra that installs it.
        who: what needs it, the beginning of the error line.

    Raises:
        UserError: it is not installed, or one of its libraries does not fit to another.
    """
    try:
        return import_module(module)
    except ImportError as error:
        what = error.name if isinstance(error, ModuleNotFoundError) else str(error)
        raise UserError(
            f"{who} needs the package {package} ({what} is missing); pip install 'biomedcoop[{extra}]'"
        ) from error
    except RuntimeError as error:  # a torchvision built for another torch
        reason = (str(error).splitlines() or [""])[0][:200]
        raise UserError(
            f"{who}: {module} cannot be imported ({reason}); install a torchvision built for this torch"
        ) from error
