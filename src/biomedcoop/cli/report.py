"""``biomedcoop report``: write the page of a run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from biomedcoop.cli.console import notes_said, print_json, progress_bar
from biomedcoop.cli.options import Json, Plugin, Quiet


def report(
    run: Annotated[
        Path, typer.Argument(help="Folder that 'train --out' or 'evaluate --out' wrote.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="HTML file to write (.html). Default: report.html in the folder.")
    ] = None,
    specificity: Annotated[
        float, typer.Option("--specificity", help="State the sensitivity of each class at this specificity (0 to 1).")
    ] = 0.9,
    images: Annotated[
        bool | None,
        typer.Option(
            "--images/--no-images",
            metavar="",
            help="Show images, maps and names of images, or leave them out. Default: as in the run or evaluation.",
            show_default=False,
        ),
    ] = None,
    plugin: Plugin = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the HTML report of a run again: one file that needs no network. Not a medical device.

    The folder says where its images are (run.json, evaluation.json). If they are gone, the report is written without them.
    """
    from biomedcoop.report.html.write import write_html

    with progress_bar() as progress:
        path = write_html(run, out, specificity=specificity, images=images, progress=progress)
    if json:
        print_json({"report": str(path), "notes": notes_said()})
        return
    print(f"report: {path}")
