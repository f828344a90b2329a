"""``biomedcoop predict``: predict class probabilities of new images."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from biomedcoop.cli.console import inform, notes_said, print_json, progress_bar, say, say_notes
from biomedcoop.cli.options import (
    Device,
    Frame,
    Json,
    Model,
    NewClasses,
    NewPrompts,
    OtherBackbone,
    OverwriteFile,
    Plugin,
    Precision,
    Quiet,
    Window,
)

if TYPE_CHECKING:
    from biomedcoop.data.tables.writing import Row


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
        bool,
        typer.Option(
            "--skip-bad",
            metavar="",
            help="Go on after images that cannot be read: their rows are empty but for the column 'error', which says why.",
        ),
    ] = False,
    classes: NewClasses = None,
    prompts: NewPrompts = "auto",
    window: Window = None,
    frame: Frame = None,
    backbone: OtherBackbone = None,
    plugin: Plugin = None,
    device: Device = "cpu",
    precision: Precision = "float32",
    overwrite: OverwriteFile = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Predict the probability of every class for new images. Without --out, print CSV, or JSON with --json.

    The output has a row for each image, in the order of the input, with the path as it stands there. Paths in a table are relative
    to the folder of the table. The column unlike_training is 1 for an image unlike the training images, else 0; a model of fewer
    than eight training images cannot tell and has no such column. Exit status 1 if an image cannot be read (with --skip-bad;
    without, nothing is written).

    Not a medical device.
    """
    from biomedcoop.classifier import load
    from biomedcoop.classifier.predictions import (
        UNLIKE,
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
    classifier = load(model, backbone, device=device, precision=precision).read_with(window, frame)
    reading = classifier.reading
    total = sum(1 for _ in find_images(images, tell=lambda note: say_notes([note]), reading=reading))
    if classes is not None:
        classifier = classifier.for_classes(split_names(classes), prompts)
    kept = kept_columns(images, split_names(keep or ""), columns_of(classifier, skip_bad=skip_bad))
    columns = columns_of(classifier, kept, skip_bad)
    bad = unlike = 0

    def counted(rows: Iterable[Row]) -> Iterator[Row]:
        nonlocal bad, unlike
        for row in rows:
            bad += row["prediction"] is None
            unlike += row.get(UNLIKE) or 0
            yield row

    # collected in a file before it is printed: a bad image must not leave half a table on the terminal or in a pipe
    with tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as printed:
        with progress_bar() as progress:
            rows = counted(
                predict_rows(
                    classifier,
                    find_images(images, keep=kept, reading=reading),
                    keep=kept,
                    skip_bad=skip_bad,
                    progress=lambda done: progress("predicting", done, total),
                )
            )
            if out is not None:
                count = write_predictions(rows, columns, out, overwrite=overwrite)
            else:
                count = write_json(rows, printed) if json else write_csv(rows, columns, printed)
        printed.seek(0)
        shutil.copyfileobj(printed, sys.stdout)
    if out is not None and json:
        found = unlike if UNLIKE in columns else None
        print_json({"out": str(out), "n_images": count, "unreadable": bad, UNLIKE: found, "notes": notes_said()})
    words = f"{count - bad} prediction{'' if count - bad == 1 else 's'}" + (f" in {out}" if out is not None else "")
    if bad:
        say(f"{words}; {bad} of {count} images cannot be read, the column 'error' says why")
        raise typer.Exit(1)
    if out is not None:
        inform(words)
