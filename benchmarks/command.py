"""What the benchmarks' command lines share: a wrong input gets one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from biomedcoop.errors import UserError, command_line


def positive(text: str) -> int:
    """A whole number from 1 on, for ``argparse``."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def start(main: Callable[[], None]) -> None:
    """Call it; what a user can mend ends in one line and exit code 2."""
    with command_line():
        try:
            main()
        except (UserError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
