"""The code of plug-ins: which plug-in a method comes from, and an error in that code as one line."""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomedcoop.errors import UserError

if TYPE_CHECKING:
    from biomedcoop.methods.base import Method

GROUP = "biomedcoop.methods"
"""Group of the entry points."""

CALLS = ("settings", "check_backbone", "step_macs", "threads", "fit", "adapted", "logits", "tried", "retarget")
"""Parts of a method that this package calls."""


def is_own(method: type[Method]) -> bool:
    """Whether a method is one of this package."""
    return method.__module__.partition(".")[0] == "biomedcoop"


def plugin_of(method: Method) -> str | None:
    """The plug-in that a method comes from, without folders of this machine; None for a method of this package."""
    module = type(method).__module__
    if is_own(type(method)):
        return None
    for entry in entry_points(group=GROUP):
        if entry.dist and f"{module}.".startswith(f"{entry.module}."):
            return f"{entry.name} of the package {entry.dist.name}"
    file = getattr(sys.modules.get(module), "__file__", None)
    return Path(file).name if file else module


def guarded(method: type[Method]) -> type[Method]:
    """The same method; an error in one of its :data:`CALLS` becomes a :class:`UserError` that names the plug-in and the line.

    The class of the user stays as it is, so that its own tests see its own errors.
    """

    def guard(name: str) -> Callable[..., Any]:
        @functools.wraps(getattr(method, name))
        def call(self: Method, *arguments: Any, **named: Any) -> Any:
            try:
                return getattr(super(own, self), name)(*arguments, **named)
            except UserError:
                raise
            except (Exception, SystemExit) as error:  # a plug-in may raise anything
                raise UserError(f"{_of(self, name, error)}: {words_of(error)}") from error

        return call

    names = {"__module__": method.__module__, "__qualname__": method.__qualname__, "__doc__": method.__doc__}
    own = type(method.__name__, (method,), {**names, **{name: guard(name) for name in CALLS}})
    return own


def wrong_result(method: Method, call: str, fault: str) -> UserError:
    """The error that a method of a plug-in returned something else than it must."""
    return UserError(f"{_of(method, call)}: {fault}")


def line_of(error: BaseException, module: str, plugin: str = "") -> str:
    """Place of an error in the code of a module or its package: ", line 12"; empty if the error is not from there.

    Args:
        plugin: name of the plug-in in the message; a file of another name is named too.
    """
    package = f"{module.partition('.')[0]}."
    lines = [
        (Path(frame.f_code.co_filename).name, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if f"{frame.f_globals.get('__name__', '')}.".startswith(package)
    ]
    if not lines:
        return ""
    file, line = lines[-1]
    return f", line {line}" if plugin.endswith(file) else f", {file} line {line}"


def words_of(error: BaseException) -> str:
    """The type and the text of an error in one line: ``ValueError: no image``."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(".: ")


def _of(method: Method, call: str, error: BaseException | None = None) -> str:
    plugin = plugin_of(method) or "biomedcoop"
    line = "" if error is None else line_of(error, type(method).__module__, plugin)
    return f"plug-in {plugin}{line}: {call} of the method '{method.name}'"
