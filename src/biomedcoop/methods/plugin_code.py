"""The code of plug-ins: which plug-in a method comes from, and an error in that code, or a wrong result of it, as one line."""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomedcoop.errors import UserError
from biomedcoop.lazy import torch

if TYPE_CHECKING:
    from biomedcoop.methods.base import Method, State, Task

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

    So does a state of ``fit`` or ``retarget`` that cannot answer, so whoever calls them need not check it. The class of the user
    stays as it is, so that its own tests see its own errors.
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

    calls = {name: guard(name) for name in CALLS}

    @functools.wraps(method.fit)
    def fit(self: Method, task: Task, settings: Any, seeds: Sequence[int], progress: Any = None) -> Any:
        states = calls["fit"](self, task, settings, seeds, progress)
        _check_states(self, states, len(seeds))
        for state in states:
            _check_answers(self, "fit", state, task)
        return states

    @functools.wraps(method.retarget)
    def retarget(self: Method, state: State, task: Task, settings: Any) -> Any:
        new = calls["retarget"](self, state, task, settings)
        if not _is_state(new):
            raise wrong_result(self, "retarget", "it must return a dict of tensors")
        _check_answers(self, "retarget", new, task)
        return new

    names = {"__module__": method.__module__, "__qualname__": method.__qualname__, "__doc__": method.__doc__}
    own = type(method.__name__, (method,), {**names, **calls, "fit": fit, "retarget": retarget})
    return own


def wrong_result(method: Method, call: str, fault: str) -> UserError:
    """The error that a method of a plug-in returned something else than it must."""
    return UserError(f"{_of(method, call)}: {fault}")


def _is_state(one: object) -> bool:
    return isinstance(one, dict) and all(isinstance(tensor, torch.Tensor) for tensor in one.values())


def _check_states(method: Method, states: object, runs: int) -> None:
    """Refuse what ``fit`` may return in place of the states of all runs."""
    if not isinstance(states, list) or len(states) != runs or not all(map(_is_state, states)):
        raise wrong_result(
            method, "fit", f"it must return a list with a dict of tensors for each of the seeds, here {runs}"
        )


def _check_answers(method: Method, call: str, state: State, task: Task) -> None:
    """Refuse a state whose logits of two images are not a finite number for each image and class."""
    backbone = method.adapted(state, task.backbone)
    classes, width = len(task.class_names), backbone.embed_dim
    if method.logits.__module__ == "biomedcoop.methods.base":  # the default
        embeddings = state.get("class_embeddings", torch.empty(0))
        if list(embeddings.shape) != [classes, width] or "logit_scale" not in state:
            held = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in state.items()) or "nothing"
            raise wrong_result(
                method,
                call,
                f"the default logits reads class_embeddings [{classes}, {width}] and logit_scale of a state, which holds {held}; "
                "return these, or define logits",
            )
    with torch.no_grad():
        images = torch.ones(2, width, device=backbone.device)
        here = {name: tensor.to(backbone.device) for name, tensor in state.items()}
        logits, wanted = method.logits(here, images, backbone), [2, classes]
    shape = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if shape == wanted and not bool(logits.isfinite().all()):
        raise wrong_result(method, "logits", "they hold values that are not finite")
    if shape != wanted:
        raise wrong_result(
            method, "logits", f"of 2 images it must return a tensor {wanted}, a column for each class, not {shape}"
        )


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
