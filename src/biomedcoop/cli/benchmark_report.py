"""``biomedcoop benchmark report``: tables and figures of a benchmark, rebuilt without running anything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from biomedcoop.cli.console import print_text
from biomedcoop.cli.options import Quiet


def report(
    results: Annotated[Path, typer.Argument(help="Output folder of a benchmark.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write. Default: 'report' in the output folder.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write the tables and figures of a benchmark anew, from its output folder alone: no images, no backbone.

    The benchmark may still run: the report holds what is finished. An earlier report is replaced.
    """
    from biomedcoop.benchmark.reporting import write_report

    print_text(f"wrote {write_report(results, out)}")
