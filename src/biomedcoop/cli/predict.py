"""``biomedcoop predict``: predict class probabilities of new images."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
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
    from biomedcoop.data.readers.unlabelled import ListedImage
    from biomedcoop.data.tables.writing import Row

MANY = 200
"""Images from which on the predictions of an interrupted run are kept."""


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
    top_k: Annotated[
        int | None,
        typer.Option(
            "--top-k",
            metavar="K",
            help="Write the K most probable classes of each image, in place of a column for each class.",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold", metavar="P", help="Mark images whose highest probability is below P in the column 'abstain'."
        ),
    ] = None,
    sets: Annotated[
        bool | None,
        typer.Option(
            "--sets/--no-sets",
            help="Write prediction sets, or leave them out. Default: if the model was trained with --alpha.",
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch",
            metavar="N",
            help="Images that are encoded together. Default: what suits the backbone and device.",
        ),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(
            "--log",
            metavar="FILE",
            help="JSON file to write: versions, checksum of the model, options, counts, notes; no names.",
        ),
    ] = None,
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
    than eight training images, or with a single one of a class, cannot tell and has no such column. Exit status 1 if an image
    cannot be read (with --skip-bad; without, nothing is written). With --out, predictions of 200 images or more survive an
    interruption: the same command continues.

    Not a medical device.
    """
    from biomedcoop.classifier import load
    from biomedcoop.classifier.domain import closing_notes
    from biomedcoop.classifier.partial import continued, depends_on, partial_file
    from biomedcoop.classifier.predictions import (
        ABSTAIN,
        UNLIKE,
        Contents,
        check_predictions_file,
        columns_of,
        predict_rows,
        write_predictions,
    )
    from biomedcoop.data.images.facts import Tally
    from biomedcoop.data.name_lists import split_names
    from biomedcoop.data.readers.unlabelled import find_images, kept_columns
    from biomedcoop.data.tables.writing import write_csv, write_json
    from biomedcoop.errors import UserError
    from biomedcoop.evaluation_run import write_prediction_log
    from biomedcoop.output import check_apart, check_new_file

    began = time.time()
    if out is not None:
        check_predictions_file(out, overwrite)
    if log is not None:
        check_new_file(log, overwrite)
    check_apart((out, log), images)
    classifier = load(model, backbone, device=device, precision=precision).read_with(window, frame)
    reading, tally = classifier.reading, Tally.after(classifier.facts)
    logged = dict.fromkeys(notes_said())  # notes of the log, which name no image
    total = sum(1 for _ in find_images(images, tell=lambda note: say_notes([note]), reading=reading))
    if classes is not None:
        so_far = len(notes_said())
        classifier = classifier.for_classes(split_names(classes), prompts)
        logged |= dict.fromkeys(notes_said()[so_far:])
    elif prompts != "auto":
        raise UserError("--prompts names sentences about new classes; give --classes too, or leave --prompts out")
    contents = Contents(top_k, threshold, sets).checked(classifier)
    kept = kept_columns(images, split_names(keep or ""), columns_of(classifier, skip_bad=skip_bad, contents=contents))
    columns = columns_of(classifier, kept, skip_bad, contents)
    waiting = partial_file(out) if out is not None and total >= MANY else None
    bad = unlike = abstained = done = earlier = 0

    def counted(rows: Iterable[Row]) -> Iterator[Row]:
        nonlocal bad, unlike, abstained, done
        for row in rows:
            bad += row["prediction"] is None
            unlike += row.get(UNLIKE) or 0
            abstained += row.get(ABSTAIN) or 0
            done += 1
            yield {name: row.get(name) for name in columns}

    def taken(rows: int) -> None:
        nonlocal earlier
        earlier = rows
        if rows:
            inform(f"continues an interrupted run: {rows} of {total} predictions are there")

    # collected in a file before it is printed: a bad image must not leave half a table on the terminal or in a pipe
    with tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as printed:
        with progress_bar() as progress:
            listed = find_images(
                images, tell=lambda note: logged.update({note: None}), keep=kept, reading=reading, named=False
            )

            def predicted(rest: Iterable[Path | ListedImage]) -> Iterator[Row]:
                return predict_rows(
                    classifier,
                    rest,
                    keep=kept,
                    skip_bad=skip_bad,
                    contents=contents,
                    batch=batch,
                    tally=tally,
                    progress=lambda n: progress("predicting", earlier + n, total),
                )

            if waiting is None:
                rows = counted(predicted(listed))
            else:
                depends = depends_on(classifier, kept, contents, batch)
                rows = counted(continued(predicted, listed, waiting, depends, taken))
            if out is not None:
                try:
                    count = write_predictions(rows, columns, out, overwrite=overwrite)
                except KeyboardInterrupt:
                    if waiting is None:
                        raise
                    raise KeyboardInterrupt(
                        f"{done} of {total} predictions are kept in {waiting.name}; the same command continues"
                    ) from None
                if waiting is not None:
                    waiting.unlink(missing_ok=True)
            else:
                count = write_json(rows, printed) if json else write_csv(rows, columns, printed)
        tally.images, tally.unlike = count - bad, unlike  # those of an interrupted run too
        say_notes(closing_notes(tally, classifier.facts))
        logged |= dict.fromkeys(closing_notes(tally, classifier.facts, named=False))
        if earlier and tally.notes():
            note = (
                f"notes on how images are read concern the {count - earlier} read now, not those of the interrupted run"
            )
            say_notes([note])
            logged[note] = None
        printed.seek(0)
        shutil.copyfileobj(printed, sys.stdout)
    if log is not None:
        counts = {"images": count, "unreadable": bad, "from an interrupted run": earlier}
        counts |= {UNLIKE: unlike} if UNLIKE in columns else {}
        counts |= {ABSTAIN: abstained} if ABSTAIN in columns else {}
        chosen = {
            **contents._asdict(),
            "batch": batch,
            "window": reading.window,
            "frame": reading.frame,
            "keep": kept,
            "skip_bad": skip_bad,
            "classes": classes is not None,
        }
        write_prediction_log(log, classifier, counts, chosen, list(logged), began)
    if out is not None and json:
        found = unlike if UNLIKE in columns else None
        print_json({"out": str(out), "n_images": count, "unreadable": bad, UNLIKE: found, "notes": notes_said()})
    words = f"{count - bad} prediction{'' if count - bad == 1 else 's'}" + (f" in {out}" if out is not None else "")
    if bad:
        say(f"{words}; {bad} of {count} images cannot be read, the column 'error' says why")
        raise typer.Exit(1)
    if out is not None:
        inform(words)
