"""``biomedcoop export``: write a classifier for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from biomedcoop.cli.console import inform, notes_said, print_json
from biomedcoop.cli.options import Json, Model, OtherBackbone, OverwriteFile, Plugin, Quiet
from biomedcoop.errors import UserError


def export(
    model: Model,
    onnx: Annotated[
        bool, typer.Option("--onnx", metavar="", help="Write an ONNX file, which runs with onnxruntime alone.")
    ] = False,
    out: Annotated[Path, typer.Option("--out", help="File to write.")] = Path("model.onnx"),
    int8: Annotated[
        str | None,
        typer.Option(
            "--int8",
            metavar="DATA",
            help="Store the weights as 8-bit integers, a quarter of the size. Test images of DATA show the cost.",
        ),
    ] = None,
    backbone: OtherBackbone = None,
    plugin: Plugin = None,
    overwrite: OverwriteFile = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a classifier as one file for other programs: crops in, class probabilities out.

    The metadata of the file state how an image becomes a crop, the class names, the licence and the versions. The file is compared
    with torch before it appears.

    Not a medical device.
    """
    from biomedcoop.classifier import load
    from biomedcoop.data.readers.load import load_dataset
    from biomedcoop.deploy.onnx import export_onnx

    if not onnx:
        raise UserError("name the format to write: --onnx")
    classifier = load(model, backbone)
    data = None if int8 is None else load_dataset(int8)
    written = export_onnx(classifier, out, int8=data, overwrite=overwrite)
    if json:
        found = {"out": str(out), "difference": written.difference, "int8": written.int8}
        print_json({**found, "notes": notes_said()})
    words = f"{out}: probabilities differ from torch by at most {written.difference:.1e}"
    if cost := written.int8:
        words = (
            f"{out}: int8; accuracy {100 * cost['accuracy']:.1f} %, in float32 {100 * cost['accuracy_float32']:.1f} %, "
            f"the same class for {100 * cost['same']:.1f} % of {cost['images']:.0f} test images"
        )
    inform(words)
