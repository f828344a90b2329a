"""``biomedcoop embed``: write image features to a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from biomedcoop.cli.console import inform, notes_said, print_json, progress_bar, say
from biomedcoop.cli.options import Device, Frame, Json, OverwriteFile, Precision, Quiet, Window, help_of
from biomedcoop.errors import UserError


def embed(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Images: files, folders, tables, or any data that 'train --data' takes, such as class folders, .npz and names.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="File to write: .parquet or .npz.", show_default=False)],
    backbone: Annotated[str, typer.Option("--backbone", help=help_of("backbone"))] = "mini",
    unit_norm: Annotated[
        bool, typer.Option("--unit-norm", metavar="", help="Divide each feature by its Euclidean norm.")
    ] = False,
    skip_bad: Annotated[
        bool,
        typer.Option(
            "--skip-bad",
            metavar="",
            help="Go on after images that cannot be read: their rows have no feature, and the column 'error' says why.",
        ),
    ] = False,
    no_labels: Annotated[
        bool, typer.Option("--no-labels", metavar="", help="Read folders and tables without their classes and splits.")
    ] = False,
    window: Window = None,
    frame: Frame = None,
    device: Device = "cpu",
    precision: Precision = "float32",
    overwrite: OverwriteFile = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the features that a backbone computes of images, for use in other programs.

    The file has a row for each image: key (its path or place in the data), class and split where the data give them, and features
    (float32, as the image encoder gives them). Its metadata name the backbone, its fingerprint, the precision and the version. Exit
    status 1 if an image cannot be read (with --skip-bad; without, nothing is written).
    """
    from biomedcoop.errors import ImageError
    from biomedcoop.features.embed import check_embeddings_file
    from biomedcoop.features.embed import embed as embed_images
    from biomedcoop.output import check_apart

    check_embeddings_file(out, overwrite)
    check_apart((out,), map(Path, sources))
    with progress_bar() as progress:
        try:
            found = embed_images(
                sources,
                backbone,
                unit_norm=unit_norm,
                skip_bad=skip_bad,
                labels=not no_labels,
                window=window or "auto",
                frame=frame or "all",
                device=device,
                precision=precision,
                progress=progress,
            )
        except ImageError as error:
            raise UserError(f"{error}; or pass --skip-bad to go on after such images") from error
    found.write(out, overwrite)
    count, width = found.features.shape
    if json:
        counts = {"classes": _counts(found.classes), "splits": _counts(found.splits)}
        about = {"out": str(out), "n_images": count, "unreadable": found.unreadable, "width": width}
        print_json({**about, **counts, **found.about, "notes": notes_said()})
    good = count - found.unreadable
    words = f"{good} feature{'' if good == 1 else 's'} of width {width} in {out}"
    if found.unreadable:
        say(f"{words}; {found.unreadable} of {count} images cannot be read, the column 'error' says why")
        raise typer.Exit(1)
    inform(words)


def _counts(texts: Sequence[str | None] | None) -> dict[str, int] | None:
    """Number of images by class or split, sorted by name; None if there are none."""
    return None if texts is None else dict(sorted(Counter(text for text in texts if text is not None).items()))
