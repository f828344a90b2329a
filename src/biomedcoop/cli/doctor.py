"""``biomedcoop doctor``: check this installation."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from biomedcoop.cli.console import print_json, print_table
from biomedcoop.cli.options import Json

BugReport = Annotated[
    bool, typer.Option("--bug-report", help="Print what an issue needs, as Markdown without paths and names.")
]


def doctor(bug_report: BugReport = False, json: Json = False) -> None:
    """Check versions, hardware, cache folder and the shipped backbone. Exit status 1 if a check fails."""
    checks = examine()
    if bug_report:
        from biomedcoop.cli.bug_report import bug_report as facts_of
        from biomedcoop.cli.bug_report import markdown

        facts = facts_of(checks)
        print_json(facts) if json else print(markdown(facts))
    elif json:
        print_json(checks)
    else:
        from rich.table import Table

        table = Table("check", "result", "")
        for name, check in checks.items():
            table.add_row(name, str(check["result"]), "" if check["ok"] else "wrong")
        print_table(table)
    if not all(check["ok"] for check in checks.values()):
        raise typer.Exit(1)


def examine() -> dict[str, dict[str, Any]]:
    """Name of each check -> {"ok", "result"}."""
    import os
    import shutil

    import numpy as np
    import torch

    from biomedcoop.backbones import load_backbone
    from biomedcoop.backbones.precision import automatic, bfloat16_gain
    from biomedcoop.backbones.registry import automatic_device
    from biomedcoop.data.images.decoders.dicom import decodable
    from biomedcoop.errors import UserError
    from biomedcoop.features.passes import encode_crops
    from biomedcoop.features.store import default_root
    from biomedcoop.features.upkeep import summary
    from biomedcoop.output import check_new_folder
    from biomedcoop.runs import versions
    from biomedcoop.threads import available_cores

    checks: dict[str, dict[str, Any]] = {name: {"ok": True, "result": value} for name, value in versions().items()}
    usable, present = available_cores(), os.cpu_count()
    checks["CPU cores"] = {"ok": True, "result": f"{usable} of {present} may be used" if usable != present else usable}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none (not needed)"
    checks["GPU"] = {"ok": True, "result": gpu}
    checks["--device auto"] = {"ok": True, "result": str(automatic_device())}
    decodes = decodable()
    missing = [name for name, works in decodes.items() if not works]
    known = f"all but {', '.join(missing)}" if missing else ", ".join(decodes)
    checks["DICOM"] = {"ok": True, "result": known or "not read: pip install 'biomedcoop[dicom]'"}
    root = default_root()
    try:
        check_new_folder(root / "doctor", False, "")
        held = summary(root)
        size, vectors = sum(s.bytes for s in held) / 2**20, sum(s.vectors for s in held)
        place = next(folder for folder in (root, *root.parents) if folder.exists())
        free = shutil.disk_usage(place).free / 2**30
        checks["feature store"] = {
            "ok": free > 0.2,
            "result": f"{root}: {vectors} vectors, {size:.1f} MiB; {free:.1f} GiB free",
        }
    except UserError as error:
        checks["feature store"] = {"ok": False, "result": str(error)}
    try:
        backbone = load_backbone("mini")
        shape = (backbone.image_size, backbone.image_size, 3)
        finite = bool(np.isfinite(encode_crops(backbone, [np.zeros(shape, dtype=np.uint8)])).all())
        checks["mini backbone"] = {"ok": finite, "result": f"loads and encodes, fingerprint {backbone.fingerprint[:8]}"}
        gain = f"{bfloat16_gain(backbone):.1f} times as fast in bfloat16 as in float32"
        checks["--precision auto"] = {
            "ok": True,
            "result": f"{automatic(backbone)}; mini's image tower is {gain}",
        }
    except UserError as error:
        checks["mini backbone"] = {"ok": False, "result": str(error)}
    return checks
