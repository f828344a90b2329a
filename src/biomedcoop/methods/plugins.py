"""Plug-ins: methods in a user's own module.

A plug-in is a Python file, named by ``--plugin FILE`` or :func:`load_plugin`, or an installed package with an entry point in the
group ``biomedcoop.methods``. In Python, importing a module registers its methods too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from biomedcoop.errors import UserError, notify
from biomedcoop.methods.base import REGISTRY
from biomedcoop.methods.plugin_code import GROUP, line_of, words_of


def load_plugin(file: str | os.PathLike[str]) -> None:
    """Run a Python file that registers methods. A file that this process has run or imported before is not run again.

    The code can do all that the user can do, so only trusted files should be loaded.

    Raises:
        UserError: there is no such file, its code fails, or it registers no method.

    Example:
        >>> from biomedcoop.methods import load_plugin
        >>> load_plugin("nearest_mean.py")
        Traceback (most recent call last):
            ...
        biomedcoop.errors.UserError: plug-in nearest_mean.py: there is no such Python file; give a .py file that registers a method
    """
    from biomedcoop.data.readers.named import user_path  # imports Pillow, which a list of methods does not need

    name, path = f"plug-in {os.fspath(file)}", user_path(file).resolve()
    if _imported(path):
        return
    if path.suffix != ".py" or not path.is_file():
        raise UserError(f"{name}: there is no such Python file; give a .py file that registers a method")
    # the path is the module's name: no other module can have it
    module = ModuleType(str(path))
    module.__file__ = str(path)

    def run() -> None:
        sys.modules[module.__name__] = module
        exec(compile(path.read_bytes(), path, "exec", dont_inherit=True), module.__dict__)

    try:
        _registering(name, module.__name__, run)
    except UserError:
        del sys.modules[module.__name__]
        raise


def load_installed() -> None:
    """Load the plug-ins of installed packages. One that fails is left out with a note: most commands need no plug-in."""
    for entry in entry_points(group=GROUP):
        package = entry.dist.name if entry.dist else entry.value
        try:
            if entry.module not in sys.modules:
                _registering(f"plug-in {entry.name} of the package {package}", entry.module, entry.load)
        except UserError as error:
            notify([f"{error}; its methods are left out"])


def _imported(path: Path) -> bool:
    """Whether a module of this process was read from the file."""
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    return any(file and file.endswith(path.name) and Path(file).resolve() == path for file in files)


def _registering(name: str, module: str, run: Callable[[], object]) -> None:
    """Run the code of a plug-in; if it fails, none of its methods stays registered.

    Raises:
        UserError: the code fails or registers no method; the message names the plug-in and the line.
    """
    before = dict(REGISTRY)
    try:
        run()
    except (Exception, SystemExit) as error:  # a plug-in may raise anything
        REGISTRY.clear()
        REGISTRY.update(before)
        raise UserError(f"{name}{line_of(error, module, name)}: {words_of(error)}") from error
    if before == REGISTRY:
        raise UserError(f"{name} registers no method; write @register before its class")
