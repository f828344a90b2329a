"""Former names of the public API: they work for at least one more minor version, and a note says what to write instead.

``docs/versions.md`` says which names the promise covers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from biomedcoop.errors import Note, UserError, notify

P = ParamSpec("P")
T = TypeVar("T")


class Deprecation(Note, FutureWarning):
    """A note about a former name: Python shows it to everybody, the command line as one line on stderr."""


def deprecated(former: str, present: str, removal: str) -> None:
    """Say that a former name was used.

    Args:
        former, present: the name that was used, and the one to use, as the user writes them.
        removal: the version in which the former name ends, such as "0.4".
    """
    notify([f"{former} is now {present}; the former name ends with version {removal}"], Deprecation)


def renamed_arguments(removal: str, **present: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A decorator that lets a function take former names of its keyword arguments.

    Args:
        removal: the version in which the former names end.
        present: former name -> present name.

    Returns:
        The decorator; the function it gives refuses an argument under both names with a `UserError`.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            for former in present.keys() & kwargs.keys():
                if present[former] in kwargs:
                    raise UserError(f"{former} is the former name of {present[former]}; give {present[former]} alone")
                deprecated(former, present[former], removal)
                kwargs[present[former]] = kwargs.pop(former)
            return function(*args, **kwargs)

        return call

    return decorate


def renamed_function(former: str, function: Callable[P, T], removal: str) -> Callable[P, T]:
    """``function`` under its former name, with a note at each call.

    Args:
        former: the former name.
        function: what it stands for.
        removal: the version in which the former name ends.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        deprecated(f"{former}()", f"{function.__name__}()", removal)
        return function(*args, **kwargs)

    call.__name__ = call.__qualname__ = former
    return call
