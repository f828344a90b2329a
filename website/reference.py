"""Pages of the reference: the public names from their docstrings, the commands from the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import typer

from biomedcoop.cli.main import app
from website.chapters import CHAPTERS


def python_page() -> str:
    """The public names of the package, for mkdocstrings to fill in."""
    parts = [
        "# Python",
        "",
        "`import biomedcoop as bc`. Names are loaded on first use; `bc.__version__` is the version.",
        "",
    ]
    for chapter, names in CHAPTERS.items():
        parts += [f"## {chapter}", ""]
        for name in names:
            # the signature of a request holds the words of every option once more
            options = "heading_level: 3" + ", show_signature: false" * name.startswith("tasks.request.")
            parts += [f"::: biomedcoop.{name}", f"    options: {{{options}}}", ""]
    return "\n".join(parts)


def commands_page() -> str:
    """Every command with its arguments and options."""
    root = typer.main.get_command(app)
    parts = [
        "# Commands",
        "",
        "`biomedcoop COMMAND --help` prints the same. Options that stand before the command:",
        "",
    ]
    parts += [*_parameters(root), ""]
    for words, command in _commands(root, ("biomedcoop",)):
        context = click.Context(command, info_name=" ".join(words))
        usage = " ".join(command.collect_usage_pieces(context))
        parts += [f"## {' '.join(words[1:])}", "", *_help(command), ""]
        parts += ["```text", f"{' '.join(words)} {usage}", "```", "", *_parameters(command), ""]
    return "\n".join(parts)


def _commands(group: click.Command, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in getattr(group, "commands", {}).items():
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from _commands(command, (*words, name))
        else:
            yield (*words, name), command


def _help(command: click.Command) -> list[str]:
    """The lines of a help text; one that is printed as it stands, behind \\b, becomes a block."""
    parts = []
    for paragraph in (command.help or "").replace("\f", "").split("\n\n"):
        verbatim = paragraph.lstrip("\n").startswith("\b")
        words = paragraph.replace("\b", "").strip("\n")
        parts += ["```text", words, "```", ""] if verbatim else [words.replace("<", "&lt;"), ""]
    return parts


def _parameters(command: click.Command) -> list[str]:
    context = click.Context(command)
    rows = []
    for parameter in command.params:
        if getattr(parameter, "hidden", False):
            continue
        shown = parameter.get_help_record(context)
        name, words = shown or (parameter.make_metavar(context), getattr(parameter, "help", None) or "")
        rows.append(f"| {_code(name)} | {_cell(words)} |")
    return ["| option | meaning |", "|---|---|", *rows] if rows else []


def _code(text: str) -> str:
    return "`" + re.sub(r"\s+", " ", text).strip().replace("|", r"\|") + "`"


def _cell(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(r"([|*_\[\]])", r"\\\1", text).replace("<", "&lt;")
