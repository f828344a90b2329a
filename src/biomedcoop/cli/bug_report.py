"""What an issue needs to be understood, as Markdown to paste: ``biomedcoop doctor --bug-report``.

No path, no name of a user or machine, and no value of an environment variable but the numbers of threads.
"""

from __future__ import annotations

import getpass
import os
import platform
import re
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS")
OWN = re.compile(r"BIOMEDCOOP_\w+|HF_HOME|HF_ENDPOINT|HF_HUB_OFFLINE|HTTPS?_PROXY|SSL_CERT_FILE")
FOLDERS = re.compile(r"(?:[A-Za-z]:)?(?:[\\/][^\\/\s:'\"]+)+[\\/]")
LEFT_OUT = ("feature store",)
"""Checks whose result is a path."""


def bug_report(checks: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """What is asked for -> what holds here.

    Args:
        checks: those of ``biomedcoop doctor``.
    """
    from biomedcoop.backbones.catalogue import BACKBONES
    from biomedcoop.backbones.registry import found, locate
    from biomedcoop.data.images.decoders import all_decoders
    from biomedcoop.threads import available_cores, torch_cores

    facts = {
        name: str(check["result"]) if check["ok"] else f"wrong: {check['result']}"
        for name, check in checks.items()
        if name not in LEFT_OUT
    }
    for name in LEFT_OUT:
        facts[name] = "can be used" if checks[name]["ok"] else "cannot be used"
    set_threads = " ".join(f"{name}={os.environ[name]}" for name in THREADS if name in os.environ)
    names = sorted(name for name in os.environ if OWN.fullmatch(name.upper()))
    facts |= {
        "platform": f"{platform.platform()}, {platform.python_implementation()} {'64' if sys.maxsize > 2**32 else '32'} bit",
        "threads": f"{torch_cores()} of torch, {available_cores()} cores; {set_threads or 'none set'}",
        "backbones here": ", ".join(name for name in BACKBONES if locate(name)),
        "other backbones here": str(len(found())),
        "image formats": ", ".join(decoder.name for decoder in all_decoders()),
        "packages": ", ".join(packages()),
        "environment (names alone)": ", ".join(names) or "none of ours",
    }
    return {name: without_places(value) for name, value in facts.items()}


def packages() -> list[str]:
    """``name version`` of every package that this one or an extra of it asks for, as far as it is installed."""
    names = {re.split(r"[ \[<>=!;~(]", text, maxsplit=1)[0] for text in requires("biomedcoop") or ()}
    installed = []
    for name in sorted(names - {"biomedcoop"}, key=str.lower):
        try:
            installed.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return installed


def without_places(text: str) -> str:
    """The text without folders and without the user's name."""
    text = FOLDERS.sub("…/", text.replace(str(Path.home()), "~"))
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # an account without a name, as in many containers
        return text
    return re.sub(rf"\b{re.escape(user)}\b", "USER", text) if len(user) > 1 else text


def markdown(facts: Mapping[str, str]) -> str:
    """A table to paste into an issue."""
    rows = (f"| {name} | {' '.join(value.split()).replace('|', chr(92) + '|')} |" for name, value in facts.items())
    return "\n".join(["| `biomedcoop doctor --bug-report` | |", "|---|---|", *rows])
