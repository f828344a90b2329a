"""``biomedcoop publish``: put a classifier on the Hugging Face hub."""

from __future__ import annotations

from typing import Annotated

import typer

from biomedcoop.cli.console import notes_said, print_json
from biomedcoop.cli.options import Json, Model, OtherBackbone, Plugin, Quiet


def publish(
    model: Model,
    name: Annotated[
        str, typer.Argument(metavar="OWNER/NAME", help="Repository on the hub; it is made if it is not there.")
    ],
    public: Annotated[
        bool, typer.Option("--public", metavar="", help="Make a repository that everyone can read. Default: private.")
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            metavar="",
            help="Add a commit to a repository that holds a classifier; it keeps the earlier one.",
        ),
    ] = False,
    backbone: OtherBackbone = None,
    plugin: Plugin = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Put a classifier on the Hugging Face hub; all commands then take it as hf://OWNER/NAME.

    Only the saved classifier is sent: tensors, description and model card; no image, no path, no report. The token is that of
    'hf auth login', or $HF_TOKEN.

    Not a medical device.
    """
    from biomedcoop.classifier import load

    address = load(model, backbone).push_to_hub(name, private=not public, overwrite=overwrite)
    if json:
        print_json({"name": address, "notes": notes_said()})
    else:
        print(address)
