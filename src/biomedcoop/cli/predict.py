"""``biomedcoop predict``: predict class probabilities of new images."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from biomedcoop.cli.console import progress_bar, say
from biomedcoop.cli.options import Device, Json, Model, NewClasses, NewPrompts, OtherBackbone, Plugin, Precision
from biomedcoop.errors import UserError


def predict(
    model: Model,
    images: Annotated[
        list[Path], typer.Argument(help="Image files, folders, or tables with a column 'path'.", show_default=False)
    ],
    out: Annotated[Path | None, typer.Option("--out", help="File to write: .csv, .json or .parquet.")] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            "--keep",
            metavar="COLUMNS",
            help="Columns of the input tables to copy to the output: names separated by commas, or 'all'.",
        ),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", metavar="", help="Report and leave out images that cannot be read.")
    ] = False,
    classes: NewClasses = None,
    prompts: NewPrompts = "auto",
    backbone: OtherBackbone = None,
    plugin: Plugin = None,
    device: Device = "cpu",
    precision: Precision = "float32",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", metavar="", help="Replace an existing output file.")
    ] = False,
    json: Json = False,
) -> None:
    """Predict the probability of every class for new images. Without --out, print CSV.

    The output repeats each path as it stands in the input. Paths in a table are relative to the folder of the table.

    Not a medical device.
    """
    from biomedcoop.classifier import load
    from biomedcoop.classifier.predictions import (
        check_predictions_file,
        columns_of,
        predict_rows,
        write_predictions,
    )
    from biomedcoop.data.name_lists import split_names
    from biomedcoop.data.readers.unlabelled import find_images, kept_columns
    from biomedcoop.data.tables.writing import write_csv, write_json

    if out is not None:
        check_predictions_file(out, overwrite)
    total = sum(1 for _ in find_images(images, tell=lambda note: say(f"note: {note}")))
    classifier = load(model, backbone, device=device, precision=precision)
    if classes is not None:
        classifier = classifier.for_classes(split_names(classes), prompts)
    kept = kept_columns(images, split_names(keep or ""), columns_of(classifier))
    columns = columns_of(classifier, kept)
    skipped = 0

    def skip(reason: str) -> None:
        nonlocal skipped
        skipped += 1
        say(reason)

    with progress_bar() as progress:
        rows = predict_rows(
            classifier,
            find_images(images, keep=kept),
            keep=kept,
            skip_bad=skip_bad,
            report=skip,
            progress=lambda done: progress("predicting", done, total),
        )
        if out is not None:
            count = write_predictions(rows, columns, out, overwrite=overwrite)
        else:
            # collected in a file first: a bad image must not leave half a table on the terminal or in a pipe
            with tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as file:
                count = write_json(rows, file) if json else write_csv(rows, columns, file)
                file.seek(0)
                shutil.copyfileobj(file, sys.stdout)
        if not count:
            raise UserError("none of the images could be read, so there is no prediction")
    if out is not None or skipped:
        where = f" in {out}" if out is not None else ""
        say(f"{count} predictions{where}" + (f", {skipped} skipped" if skipped else ""))
