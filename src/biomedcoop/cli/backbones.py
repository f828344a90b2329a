"""``biomedcoop backbones``: list and download backbones."""

from __future__ import annotations

from typing import Annotated

import typer

from biomedcoop.cli.console import print_json, print_table
from biomedcoop.cli.options import Json, Quiet

app = typer.Typer(help="Frozen vision-language models.", no_args_is_help=True)


@app.command("list")
def list_backbones(json: Json = False) -> None:
    """List the backbones and show which are on this machine."""
    from biomedcoop.backbones.catalogue import BACKBONES
    from biomedcoop.backbones.registry import locate

    status = {name: "ready" if locate(name) else f"biomedcoop backbones download {name}" for name in BACKBONES}
    if json:
        print_json(
            [
                {
                    "name": name,
                    "title": entry.title,
                    "ready": status[name] == "ready",
                    "hub": [source.repo for source in entry.sources],
                    "licence": entry.licence,
                    "megabytes": entry.megabytes,
                }
                for name, entry in BACKBONES.items()
            ]
        )
        return
    from rich.table import Table

    table = Table("name", "description", "on this machine")
    for name, entry in BACKBONES.items():
        table.add_row(name, entry.title, status[name])
    print_table(table)


@app.command("download")
def download_backbone(
    name: Annotated[
        str,
        typer.Argument(
            help="Name of the backbone, e.g. biomedclip or open_clip:ViT-B-32/laion2b_s34b_b79k.", show_default=False
        ),
    ],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Download a backbone from the Hugging Face hub; this needs the network."""
    from biomedcoop.backbones.registry import download

    folder = download(name, progress=not quiet)
    if json:
        print_json({"name": name, "folder": str(folder)})
    else:
        print(f"{name} is in {folder}")
