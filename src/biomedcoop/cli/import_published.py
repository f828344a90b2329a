"""``biomedcoop import-published``: make a classifier from a checkpoint of the published code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from biomedcoop.cli.console import notes_said, print_json
from biomedcoop.cli.options import Device, Json, Overwrite, Quiet


def import_published(
    source: Annotated[
        str,
        typer.Argument(
            help="A model.pth.tar file, its folder, or hub:DATASET/SHOTS/SEED (base-to-novel: hub:base2new/DATASET/16/SEED) "
            "for a file of the authors' repository, which is downloaded.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder to write: the saved classifier.", show_default=False)],
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes",
            help="Class names in label order, separated by commas. Default: those of --data, else of the dataset in the path.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", help="Dataset for the class names: a name of the catalogue, or a path.", show_default=False
        ),
    ] = None,
    backbone: Annotated[
        str, typer.Option("--backbone", help="Name or folder of the backbone that the checkpoint was trained on.")
    ] = "biomedclip",
    method: Annotated[
        str | None,
        typer.Option(
            "--method", help="Method that trained it. Default: what the path or the tensors tell.", show_default=False
        ),
    ] = None,
    device: Device = "cpu",
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a classifier from a checkpoint of the published code, without running anything in it.

    The result is a saved classifier for 'evaluate', 'predict', 'explain' and 'words'. Only a SOURCE that begins with hub: needs the
    network. Not a medical device.
    """
    from biomedcoop.classifier import import_published as made_from
    from biomedcoop.classifier.artefact import check_artefact_folder
    from biomedcoop.data.name_lists import split_names
    from biomedcoop.data.names import list_names

    check_artefact_folder(out, overwrite)
    names = None if classes is None else split_names(classes)
    classifier = made_from(
        source, names, data=data, backbone=backbone, method=method, device=device, progress=not quiet
    )
    classifier.save(out, overwrite=overwrite)
    if json:
        facts = {"method": classifier.method, "class_names": list(classifier.class_names), **classifier.facts}
        print_json({"folder": str(out), **facts, "notes": notes_said()})
    else:
        print(f"{classifier.method} on {classifier.backbone.name}, {list_names(classifier.class_names)}: in {out}")
