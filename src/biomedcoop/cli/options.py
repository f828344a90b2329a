"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from biomedcoop.errors import UserError

Data = Annotated[
    str,
    typer.Option(
        "--data",
        help="Folder of class folders, CSV or Parquet table, split JSON, MedMNIST .npz, 'simulated:<task>', "
        "or the name of a dataset in the folder that BIOMEDCOOP_DATA names.",
        show_default=False,
    ),
]
SplitFile = Annotated[
    Path | None, typer.Option("--split-file", help="Split JSON to use in place of the data's own split.")
]
Backbone = Annotated[
    str, typer.Option("--backbone", help="Name ('biomedcoop backbones list') or folder in open_clip layout.")
]
OtherBackbone = Annotated[
    str | None, typer.Option("--backbone", help="Name or folder of the backbone; by default the one the model names.")
]
NewClasses = Annotated[
    str | None,
    typer.Option(
        "--classes",
        help="Classes to tell apart in place of the trained ones, separated by commas; one with a comma in double quotes. Needs no "
        "image of them, and a method that can do it ('biomedcoop methods list').",
        show_default=False,
    ),
]
NewPrompts = Annotated[
    str,
    typer.Option(
        "--prompts", help="With --classes, for a method made of sentences alone: what 'train --prompts' takes."
    ),
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, mps.")]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        help="In what image features are computed: float32, bfloat16 (faster where the processor has units for it), int8 (for "
        "CPUs without, a little less exact), or auto (measures, and takes bfloat16 where that is at least 1.5 times as fast; "
        "see 'biomedcoop doctor').",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result in the output folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Model = Annotated[Path, typer.Argument(help="Run folder of 'train', or a saved classifier.", show_default=False)]


def parse_settings(pairs: list[str]) -> dict[str, str]:
    """["lr=0.001", "epochs=50"] -> {"lr": "0.001", "epochs": "50"}."""
    settings = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key or not value:
            raise UserError(f"--set {pair!r} is not of the form name=value, e.g. --set epochs=50")
        settings[key.strip().replace("-", "_")] = value.strip()
    return settings
