"""``biomedcoop words``: explain the learned text of a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from biomedcoop.cli.console import inform, print_json, print_tables, print_text
from biomedcoop.cli.options import Json, Model, OtherBackbone, Plugin, Quiet


def words(
    model: Model,
    top: Annotated[int, typer.Option("--top", min=1, help="Number of near words and near sentences to list.")] = 5,
    prompts: Annotated[
        str | None,
        typer.Option(
            "--prompts",
            help="Sentences to compare with, as for 'train --prompts'. Default: those of the training, else those that training "
            "would choose.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Figure to write, .png or .pdf: class similarities before and after training."),
    ] = None,
    backbone: OtherBackbone = None,
    plugin: Plugin = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", metavar="", help="Replace an existing figure.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Explain the learned text of a model: near words, near sentences, shift of each class, and kept sentences.

    Not a medical device.
    """
    from biomedcoop.classifier import load
    from biomedcoop.explain.figures import check_figure_file, save_figure
    from biomedcoop.explain.words import words as explain

    if out is not None:
        check_figure_file(out, overwrite)
    found = explain(load(model, backbone), top, prompts)
    if out is not None:
        save_figure(found.figure(), out)
    if json:
        print_json(found.to_dict())
    else:
        print_text(f"{found.title}: {', '.join(found.class_names)}")
        print()
        print_tables(found.tables(), found.notes)
    if out is not None:
        inform(f"class similarities in {out}")
