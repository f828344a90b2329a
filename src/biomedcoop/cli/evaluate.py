"""``biomedcoop evaluate``: test a saved classifier on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from biomedcoop.cli.console import notes_said, print_json, progress_bar
from biomedcoop.cli.options import (
    Data,
    Device,
    Json,
    Model,
    NewClasses,
    NewPrompts,
    NoHtml,
    NoImages,
    OtherBackbone,
    Overwrite,
    Plugin,
    Precision,
    Quiet,
    Rename,
    SplitFile,
    parse_rename,
)
from biomedcoop.cli.run_report import print_place, print_run_report


def evaluate(
    model: Model,
    data: Data,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            help="Split to test on: train, val, test or all. Default: test if the data have it, else all. If the model was trained "
            "on images of data without a test split, the default is the test images that 'train' draws.",
        ),
    ] = None,
    split_file: SplitFile = None,
    rename: Rename = None,
    # as in 'predict': each command lists its own options, which is how typer finds them
    classes: NewClasses = None,
    prompts: NewPrompts = "auto",
    backbone: OtherBackbone = None,
    plugin: Plugin = None,
    device: Device = "cpu",
    precision: Precision = "float32",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder to write: report, metrics, confusion matrix and a row for each image."),
    ] = None,
    no_html: NoHtml = False,
    no_images: NoImages = False,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Test a saved classifier on labelled images, beside zero-shot and the largest class.

    If the data have no test split, --split test draws the same test split as 'train'. Not a medical device.
    """
    from biomedcoop.api import compare
    from biomedcoop.classifier import load
    from biomedcoop.data.name_lists import split_names
    from biomedcoop.errors import UserError

    renamed = parse_rename(rename)
    classifier = load(model, backbone, device=device, precision=precision)
    if classes is not None:
        classifier = classifier.for_classes(split_names(classes), prompts)
    elif prompts != "auto":
        raise UserError("--prompts names sentences about new classes; give --classes too, or leave --prompts out")
    with progress_bar() as progress:
        report = compare(
            classifier,
            data,
            split,
            split_file=split_file,
            rename=renamed,
            out=out,
            overwrite=overwrite,
            html=not no_html,
            images=not no_images,
            progress=progress,
        )
    if json:
        # the numbers of the classifier itself stand on top, beside the report
        print_json({**report.metrics.to_dict(), **report.to_dict(), "notes": notes_said()})
        return
    print_run_report(report)
    if out is not None:
        print_place(out)
