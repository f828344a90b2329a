"""Fenced blocks of the Markdown pages, and which of them are run.

- A ``console`` block holds commands after ``$``, and below a command what it prints, if that is stable; ``…`` stands for any text.
- A ``python`` block is run. With ``title="NAME"`` behind the language, a block of any language is written to this file instead.
- A block that cannot be run here has the comment ``<!-- not run: REASON -->`` above it, with one of ``REASONS``.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
REASONS = (
    "installs packages",
    "needs the network",
    "needs the files of another program",
    "needs collected images",
    "needs a GPU",
    "needs a cluster",
    "needs Docker",
    "runs until it is stopped",
    "needs the server above",
    "takes minutes",
)
FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>.+?) -->\n)?(?P<ticks>```+)(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=ticks)$", re.M | re.S
)
TITLE = re.compile(r' title="([\w./-]+)"')


@dataclass(frozen=True)
class Command:
    """One command of a console block: its words, and the lines that it prints as far as the page shows them."""

    line: int
    text: str
    output: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    """Of the first line of the text, from 1."""
    language: str
    file: str
    """The name that the text is saved under; empty for a block that is run."""
    reason: str
    """Why the block is not run; empty if it is."""
    text: str

    @property
    def commands(self) -> list[Command]:
        """Those of a console block, with continued lines joined."""
        found: list[Command] = []
        continued = False
        for number, line in enumerate(self.text.splitlines()):
            if continued:
                last = found[-1]
                found[-1] = Command(last.line, f"{last.text.removesuffix(chr(92))} {line.strip()}", ())
            elif line.startswith("$ "):
                found.append(Command(self.line + number, line[2:], ()))
            else:
                last = found[-1]
                found[-1] = Command(last.line, last.text, (*last.output, line))
            continued = (continued or line.startswith("$ ")) and line.endswith("\\")
        return found

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """README, contributing and every guide; the pages of results are made by commands of their own."""
    guides = (page for page in sorted((ROOT / "docs").rglob("*.md")) if "results" not in page.relative_to(ROOT).parts)
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *guides]


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        language, _, title = match["info"].partition(" ")
        named = TITLE.search(f" {title}")
        line = text[: match.start("text")].count("\n") + 1
        found.append(Block(page, line, language, named[1] if named else "", match["reason"] or "", match["text"]))
    return found
