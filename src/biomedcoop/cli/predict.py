"""``biomedcoop predict``: probabilities for new images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from biomedcoop.cli.console import progress_bar, say
from biomedcoop.cli.options import Device, Json, Model, OtherBackbone


def predict(
    model: Model,
    images: Annotated[
        list[Path], typer.Argument(help="Image files, folders, or tables with a column 'path'.", show_default=False)
    ],
    out: Annotated[Path | None, typer.Option("--out", help="File to write: .csv, .json or .parquet.")] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Report and leave out images that cannot be read.")
    ] = False,
    backbone: OtherBackbone = None,
    device: Device = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output file.")] = False,
    json: Json = False,
) -> None:
    """Predict new images: a probability for every class. Without --out, CSV on the terminal.

    Not a medical device.
    """
    from biomedcoop.classifier import load
    from biomedcoop.classifier.predictions import (
        check_output,
        columns_of,
        csv_lines,
        find_images,
        json_lines,
        predict_rows,
        write_predictions,
    )

    if out is not None:
        check_output(out, overwrite)
    total = sum(1 for _ in find_images(images))
    classifier = load(model, backbone, device=device)
    skipped = 0

    def skip(reason: str) -> None:
        nonlocal skipped
        skipped += 1
        say(reason)

    # lines on the terminal are progress enough
    with progress_bar(quiet=out is None and sys.stdout.isatty()) as progress:
        rows = predict_rows(
            classifier,
            find_images(images),
            skip_bad=skip_bad,
            report=skip,
            progress=lambda done: progress("predicting", done, total),
        )
        if out is not None:
            count = write_predictions(rows, columns_of(classifier), out, overwrite=overwrite)
        elif json:
            count = json_lines(rows, sys.stdout)
        else:
            count = csv_lines(rows, columns_of(classifier), sys.stdout)
    if out is not None or skipped:
        where = f" in {out}" if out is not None else ""
        say(f"{count} predictions{where}" + (f", {skipped} skipped" if skipped else ""))
