"""Silence of pydicom while this package reads a file: its warnings and log lines quote the header, where patients are named.

All warnings of pydicom come from ``pydicom.misc.warn_and_log``. The filters of ``warnings`` belong to the whole process and to the
user, so the name ``warnings`` in that module is replaced by one that is silent in a thread that reads, and only there.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

_LOGGERS = ("pydicom", "pydicom.pixels.decoders.base", "pydicom.pixels.utils")

_reads: ContextVar[bool] = ContextVar("_reads", default=False)


class _Warnings:
    """The module ``warnings`` for pydicom."""

    def __getattr__(self, name: str) -> Any:
        return getattr(warnings, name)

    @staticmethod
    def warn(message: str, category: type[Warning] | None = None, stacklevel: int = 1) -> None:
        if not _reads.get():
            warnings.warn(message, category, stacklevel + 1)


@cache
def _put_in_place() -> None:
    from pydicom import misc

    misc.warnings = _Warnings()
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(lambda _: not _reads.get())


@contextmanager
def quiet() -> Iterator[None]:
    """Let pydicom neither warn nor log in this thread."""
    _put_in_place()
    before = _reads.set(True)
    try:
        yield
    finally:
        _reads.reset(before)
