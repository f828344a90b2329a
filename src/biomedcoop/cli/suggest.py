"""``biomedcoop suggest``: which unlabelled images to label next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from biomedcoop.cli.console import inform, notes_said, print_json, progress_bar
from biomedcoop.cli.options import Device, Json, OtherBackbone, OverwriteFile, Plugin, Precision, Quiet


def suggest(
    images: Annotated[
        list[Path], typer.Argument(help="Image files, folders, or tables with a column 'path'.", show_default=False)
    ],
    model: Annotated[
        Path,
        typer.Option(
            "--model", help="Run folder of 'train', saved classifier, or hf://OWNER/NAME.", show_default=False
        ),
    ],
    number: Annotated[int, typer.Option("--images", min=1, help="Number of images to suggest.")] = 10,
    out: Annotated[Path | None, typer.Option("--out", help="File to write: .csv, .json or .parquet.")] = None,
    backbone: OtherBackbone = None,
    plugin: Plugin = None,
    device: Device = "cpu",
    precision: Precision = "float32",
    overwrite: OverwriteFile = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Suggest which unlabelled images to label next, the most useful first. Without --out, print CSV, or JSON with --json.

    Of the most undecided images, five for each one asked for, those are suggested that are least like the training images and each
    other. So an image of which the model is rather sure may stand first; the column 'reason' says why. On eleven datasets,
    labelling them was not better than labelling random images beyond chance.

    Images that trained the model are left out. No two suggested images are of one group: the column 'group' or 'patient_id' of a
    table, else the patient that DICOM files name, as a hash.

    Not a medical device.
    """
    import sys

    from biomedcoop.classifier import load
    from biomedcoop.classifier.suggest import COLUMNS, TEXTS
    from biomedcoop.classifier.suggest import suggest as choose
    from biomedcoop.data.tables.writing import check_table_file, write_csv, write_json, write_table
    from biomedcoop.output import check_apart

    if out is not None:
        check_table_file(out, overwrite, "suggestions")
        check_apart((out,), images)
    classifier = load(model, backbone, device=device, precision=precision)
    with progress_bar() as progress:
        found = choose(classifier, images, number, progress=progress)
    rows = [one.to_dict() for one in found]
    if out is None:
        if json:
            write_json(rows, sys.stdout)
        else:
            write_csv(rows, COLUMNS, sys.stdout)
        return
    write_table(rows, COLUMNS, out, TEXTS)
    if json:
        print_json({"out": str(out), "n_images": len(rows), "notes": notes_said()})
    inform(f"{len(rows)} image{'s' * (len(rows) != 1)} to label in {out}")
