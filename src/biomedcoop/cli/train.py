"""``biomedcoop train``: train and test a classifier.

The options are the fields of :class:`biomedcoop.tasks.request.TrainRequest`.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from biomedcoop.cli.console import notes_said, print_json, progress_bar
from biomedcoop.cli.options import Json, NoHtml, Overwrite, Quiet, parse_seeds, parse_settings, split_list
from biomedcoop.cli.run_report import print_place, print_run_report
from biomedcoop.errors import UserError
from biomedcoop.tasks.request import BUDGET, TrainRequest


def train(ctx: typer.Context, **values: Any) -> None:
    """Train a classifier on a few images per class, test it, and write model, metrics and report.

    The test images are the data's test split. If the data have none, 30 % of each class are drawn; with fewer than 34 images (or
    groups, such as patients) in a class, all images are tested by cross-validation. Not a medical device.
    """
    out, config, overwrite, json, _ = (values.pop(name) for name in ("out", "config", "overwrite", "json", "quiet"))
    html = not values.pop("no_html")
    # only options on the command line count: the others come from the saved request or its defaults
    options = {name: value for name, value in values.items() if _on_command_line(ctx, name)}
    if "settings" in options:
        options["settings"] = parse_settings(options["settings"])
    if "seeds" in options:
        options["seeds"] = parse_seeds(options["seeds"])
    if "compare" in options:
        options["compare"] = split_list(options["compare"])
    for name in OPTIONAL & options.keys():
        options[name] = None if options[name] == "none" else options[name]
    if config is not None:
        request = TrainRequest.read(config, options)
    elif "data" in options:
        request = TrainRequest.of(options)
    else:
        raise UserError(
            "Missing option '--data'; see 'biomedcoop train --help' (or repeat an earlier run with --config)"
        )
    if out is None:
        raise UserError("Missing option '--out'; see 'biomedcoop train --help'")
    from biomedcoop.api import train as run

    with progress_bar() as progress:
        report = run(request, out, overwrite=overwrite, html=html, progress=progress)
    if json:
        print_json({**report.to_dict(), "notes": notes_said()})
        return
    print_run_report(report)
    print_place(out)
    print(f"model:  {out / 'model'}")


OPTIONAL = {field.name for field in dataclasses.fields(TrainRequest) if field.default is None} - {"settings", "plugins"}


def as_typed(message: str, option: str | None) -> str:
    """An error about an option, spelled as on the command line: "seeds=[1, 2]" becomes "--seeds 1,2"."""
    flags = {f.name: f.metadata["flag"] or f.name.replace("_", "-") for f in dataclasses.fields(TrainRequest)}
    flags[BUDGET] = BUDGET
    if option is None:
        return message

    def typed(found: re.Match[str]) -> str:
        listed = found["listed"] or ""
        return f"--{flags[option]} " + listed.strip("[]").replace("'", "").replace(", ", ",")

    return re.sub(rf"\b{option}=(?P<listed>\[[^]]*\])?", typed, message)


def _on_command_line(ctx: typer.Context, name: str) -> bool:
    """Whether the user gave an option on the command line."""
    source = ctx.get_parameter_source(name)  # an enumeration of click, of which typer may hold its own copy
    return source is not None and source.name == "COMMANDLINE"


def _signature() -> inspect.Signature:
    """The signature from which typer makes the options: one for each field of the request."""
    fields = {field.name: field for field in dataclasses.fields(TrainRequest)}
    out = Annotated[Path | None, typer.Option("--out", help="Run folder to write. Required.")]
    words = (
        "The run.json of an earlier run. Its options apply; options on the command line override them, and 'none' clears "
        "--modality, --organ or --split-file."
    )
    config = Annotated[Path | None, typer.Option("--config", help=words)]
    options: dict[str, tuple[Any, Any]] = {"data": (None, None), "out": (out, None), "config": (config, None)}
    for name, field in fields.items():
        default = None if field.default is dataclasses.MISSING else field.default
        if isinstance(default, tuple):
            default = ",".join(map(str, default))
        kind = field.metadata["kind"]
        flag = field.metadata["flag"] or field.name.replace("_", "-")
        both = f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}"  # a saved request may say yes
        required = " Required without --config." if name == "data" else ""
        metavar = {"set": "NAME=VALUE", "plugin": "FILE"}.get(flag, "" if kind is bool else None)
        names = (both, "--seed") if name == "seeds" else (both,)
        option = typer.Option(*names, help=field.metadata["help"] + required, metavar=metavar)
        options[name] = (Annotated[kind if default is not None else kind | None, option], default)
    budget = Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="TIME",
            help="Time that one fit of method auto may take, by an estimate, for candidates that train through the text encoder, "
            "such as 60s (the default) or 5min; beyond it they are left out. The others take seconds and are always tried. A "
            "cross-validation makes 15 fits more.",
        ),
    ]
    options |= {
        BUDGET: (budget, None),
        "no_html": (NoHtml, False),
        "overwrite": (Overwrite, False),
        "json": (Json, False),
        "quiet": (Quiet, False),
    }
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for name, (annotation, default) in options.items()
    ]
    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    return inspect.Signature([context, *parameters])


train.__signature__ = _signature()  # type: ignore[attr-defined]
train.__annotations__ = {name: p.annotation for name, p in _signature().parameters.items()}
