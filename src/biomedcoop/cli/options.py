"""Options shared by several commands."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from biomedcoop.cli.console import set_quiet
from biomedcoop.errors import UserError
from biomedcoop.tasks import options
from biomedcoop.tasks.request import TrainRequest


def help_of(field: str) -> str:
    """The help line of an option, from the field of the request."""
    return str(next(f for f in dataclasses.fields(TrainRequest) if f.name == field).metadata["help"])


Data = Annotated[str, typer.Option("--data", help=help_of("data"), show_default=False)]
SplitFile = Annotated[Path | None, typer.Option("--split-file", help=help_of("split_file"))]
OtherBackbone = Annotated[
    str | None, typer.Option("--backbone", help="Name or folder of the backbone. Default: the name in the saved model.")
]
NewClasses = Annotated[
    str | None,
    typer.Option(
        "--classes",
        help="Class names that replace the trained classes, separated by commas. Put a name with a comma in double quotes. Needs a "
        "method that can take new classes ('biomedcoop methods list').",
        show_default=False,
    ),
]
NewPrompts = Annotated[
    str,
    typer.Option(
        "--prompts",
        help="Sentences about the --classes, as for 'train --prompts'; only for a method without training images.",
    ),
]
Plugin = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin", metavar="FILE", help=help_of("plugins"), callback=lambda files: options.plugins("plugin", files)
    ),
]
"""The option loads the files itself, before the command looks a method up."""
Rename = Annotated[
    list[str] | None,
    typer.Option(
        "--rename",
        metavar="OLD=NEW",
        help="Read the data's class OLD as the classifier's class NEW. Repeatable; several classes may become one. Case makes no "
        "difference to names.",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option("--device", help=help_of("device"))]
Precision = Annotated[str, typer.Option("--precision", help=help_of("precision"))]
Window = Annotated[str | None, typer.Option("--window", help=help_of("window"), show_default=False)]
Frame = Annotated[str | None, typer.Option("--frame", help=help_of("frame"), show_default=False)]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", metavar="", help="Replace an earlier result in the output folder.")
]
OverwriteFile = Annotated[bool, typer.Option("--overwrite", metavar="", help="Replace an existing output file.")]
NoHtml = Annotated[
    bool, typer.Option("--no-html", metavar="", help="Do not write report.html ('biomedcoop report' can).")
]
NoImages = Annotated[
    bool,
    typer.Option("--no-images", metavar="", help="Leave images, maps and names of images out of report.html."),
]
Offline = Annotated[
    bool,
    typer.Option(
        "--offline", metavar="", help="Use no network, only what is on this machine. $HF_HUB_OFFLINE does the same."
    ),
]
Json = Annotated[bool, typer.Option("--json", metavar="", help="Print the result as JSON.")]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", metavar="", callback=set_quiet, help="Print only results and errors: no notes, no progress."
    ),
]
"""Its callback tells :mod:`biomedcoop.cli.console`, so a command that prints through it need not read the value."""
Model = Annotated[
    Path, typer.Argument(help="Run folder of 'train', saved classifier, or hf://OWNER/NAME.", show_default=False)
]


def parse_settings(pairs: list[str]) -> dict[str, str]:
    """["lr=0.001", "epochs=50"] -> {"lr": "0.001", "epochs": "50"}."""
    values = parse_pairs(pairs, "--set", "name=value, e.g. --set epochs=50")
    return {key.replace("-", "_"): value for key, value in values}


def parse_pairs(pairs: list[str], option: str, form: str) -> list[tuple[str, str]]:
    """["lr=0.001"] -> [("lr", "0.001")].

    Args:
        option, form: name of the option and what it takes, for the error line.
    """
    found = []
    for pair in pairs:
        key, _, value = (word.strip() for word in pair.partition("="))
        if not key or not value:
            raise UserError(f"{option} {pair!r} is not of the form {form}")
        found.append((key, value))
    return found


def parse_rename(pairs: list[str] | None) -> dict[str, str]:
    """["covid=covid lungs"] -> {"covid": "covid lungs"}."""
    rename: dict[str, str] = {}
    for old, new in parse_pairs(pairs or [], "--rename", "OLD=NEW, e.g. --rename 'covid=covid lungs'"):
        if rename.setdefault(old, new) != new:
            raise UserError(f"--rename gives the class '{old}' two names, '{rename[old]}' and '{new}'; give it one")
    return rename


def parse_seeds(text: str) -> list[int | str]:
    """ "1,2,3" -> [1, 2, 3]; a part that is not a whole number stays text, which the request refuses."""
    return [int(part) if part.strip().isdecimal() else part for part in text.split(",")]


def split_list(text: str) -> list[str]:
    """Names separated by commas: "coop, kgcoop" -> ["coop", "kgcoop"]; "none" -> []."""
    return [name for word in text.split(",") if (name := word.strip()) and name != "none"]
