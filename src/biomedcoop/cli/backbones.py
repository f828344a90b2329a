"""``biomedcoop backbones``: list, download, verify and convert backbones, and the published example of BiomedCLIP."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from biomedcoop.cli.console import inform, print_json, print_table, progress_bar, say
from biomedcoop.cli.options import Json, Offline, Quiet
from biomedcoop.errors import UserError

if TYPE_CHECKING:
    from biomedcoop.backbones.catalogue import Entry

app = typer.Typer(help="Frozen vision-language models.", no_args_is_help=True)


@app.command("list")
def list_backbones(json: Json = False) -> None:
    """List the backbones: which are on this machine, how large they are, their licence and where they come from."""
    from biomedcoop.backbones.catalogue import BACKBONES, Entry
    from biomedcoop.backbones.registry import found

    other = {name: Entry("downloaded by its name", licence="see the publisher's page") for name in found()}
    facts = [_facts(name, entry) for name, entry in {**BACKBONES, **other}.items()]
    if json:
        print_json(facts)
        return
    from rich.table import Table

    table = Table("name", "description", "on this machine", "licence", "from")
    for one in facts:
        here = f"{one['bytes'] / 1e6:.0f} MB" if one["bytes"] else f"no ({one['megabytes'] or '?'} MB to download)"
        origin = ", ".join(one["hub"]) or (
            "this package" if one["name"] in BACKBONES else one["name"].partition(":")[2]
        )
        if one["problem"]:
            here = f"another model, {here}"
            say(f"NOTE: {one['problem']}")
        table.add_row(one["name"], one["title"], here, one["licence"], origin)
    print_table(table)
    inform("'biomedcoop backbones download NAME' gets one; 'biomedcoop backbones verify NAME' checks it")


def _facts(name: str, entry: Entry) -> dict[str, Any]:
    from biomedcoop.backbones.registry import check_place, locate
    from biomedcoop.backbones.source import read_source

    folder = locate(name)
    sources, problem = read_source(folder) if folder else {}, None
    if folder is not None:
        try:
            check_place(name, folder)
        except UserError as error:
            problem = str(error)
    return {
        "name": name,
        "title": entry.title,
        "ready": folder is not None and problem is None,
        "problem": problem,
        "folder": str(folder) if folder else None,
        "bytes": sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) if folder else None,
        "megabytes": entry.megabytes,
        "licence": entry.licence,
        "hub": [source.repo for source in entry.sources],
        "commits": sorted({file.commit for file in sources.values() if file.commit}),
    }


@app.command("download")
def download_backbone(
    name: Annotated[
        str,
        typer.Argument(
            help="Name of the backbone, e.g. biomedclip, hub:timm/densenet121.ra_in1k or open_clip:ViT-B-32/laion2b_s34b_b79k.",
            show_default=False,
        ),
    ],
    revision: Annotated[
        str | None,
        typer.Option("--revision", help="Branch, tag or whole commit of the repository. Default: the catalogue's."),
    ] = None,
    offline: Offline = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Download a backbone from the Hugging Face hub, or complete a download. This needs the network."""
    from biomedcoop.backbones.fetch import download

    with progress_bar() as progress:
        folder = download(name, revision=revision, offline=offline, progress=progress)
    if json:
        print_json({"name": name, "folder": str(folder)})
    else:
        print(f"{name} is in {folder}")


@app.command("verify")
def verify_backbone(
    backbone: Annotated[str, typer.Argument(help="Name or folder of the backbone.", show_default=False)],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check a backbone: its files against the hub's checksums, its fingerprint, its features. Exit status 1 if a check fails."""
    from biomedcoop.backbones.verify import verify

    checks = []
    with progress_bar() as progress:
        for check in verify(backbone, progress):
            checks.append(check)
            if not json:
                print(f"{'ok  ' if check.passed else 'FAIL'} {check.what}: {check.detail}")
    if json:
        print_json([asdict(check) for check in checks])
    if not all(check.passed for check in checks):
        raise typer.Exit(1)


@app.command("convert")
def convert_weights(
    backbone: Annotated[
        str,
        typer.Argument(help="Name of a backbone, a folder, or a .bin, .pth or .pt file.", show_default=False),
    ],
    remove_old: Annotated[
        bool,
        typer.Option("--remove-old", metavar="", help="Remove each old file once the new one is compared with it."),
    ] = False,
    json: Json = False,
) -> None:
    """Convert pickled weights to safetensors once, and compare every tensor."""
    from biomedcoop.backbones.convert import convert

    files = convert(backbone, remove_old=remove_old)
    if json:
        print_json([str(file) for file in files])
    else:
        print("\n".join(f"converted to {file}, all tensors are equal" for file in files))


@app.command("selftest")
def run_selftest(
    name: Annotated[
        str, typer.Argument(help="Name of the backbone; only biomedclip has a published example.")
    ] = "biomedclip",
    offline: Offline = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run the example of BiomedCLIP's model card, with downloads if needed. Exit status 1 if an image's class is not first."""
    from biomedcoop.backbones.selftest import selftest

    with progress_bar() as progress:
        answers = selftest(name, offline=offline, progress=progress)
    right = sum(answer.right for answer in answers)
    if json:
        print_json([{**asdict(answer), "right": answer.right} for answer in answers])
    else:
        from rich.table import Table

        table = Table("image", "answer", "probability", "right")
        for answer in answers:
            table.add_row(answer.image, answer.answer, f"{answer.probability:.3f}", "yes" if answer.right else "NO")
        print_table(table)
        print(f"{right} of {len(answers)} images have their own class first; the model card shows {len(answers)}")
    if right < len(answers):
        raise typer.Exit(1)
