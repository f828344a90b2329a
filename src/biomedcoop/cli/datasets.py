"""``biomedcoop datasets``: the published datasets, the check of a dataset before training, and simulated datasets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from biomedcoop.cli.console import inform, print_first, print_json, print_table, print_text, progress_bar, say
from biomedcoop.cli.options import Frame, Json, Offline, Overwrite, Quiet, SplitFile, Window
from biomedcoop.errors import UserError

if TYPE_CHECKING:
    from biomedcoop.data.catalogue import CatalogueEntry
    from biomedcoop.data.download.check import DatasetCheck

Item = TypeVar("Item", str, Path)

app = typer.Typer(help="Published datasets, checks of datasets, and simulated datasets.", no_args_is_help=True)


@app.command("list")
def list_datasets(json: Json = False) -> None:
    """List the published datasets and show which are on this machine."""
    from biomedcoop.data.catalogue import entries, external_sites
    from biomedcoop.data.dataset import SPLITS
    from biomedcoop.data.readers.named import data_root, find_named

    known = (*entries(), *external_sites())
    if json:
        print_json([_facts(entry) for entry in known])
        return
    from rich.table import Table

    root = data_root()
    table = Table("name", "images of", "classes", "train / val / test", f"in {root}, not checked")
    for entry in known:
        place = find_named(entry.name)
        counts = " / ".join(f"{entry.counts[split]:,}" if split in entry.counts else "?" for split in SPLITS)
        kind = f" (external site of {entry.tests})" if entry.tests else ""
        about = f"{entry.organ}, {entry.modality}{kind}"
        table.add_row(entry.name, about, str(len(entry.class_names)), counts, place.name if place else "-")
    print_table(table)
    inform("the images of a folder are not checked here; 'biomedcoop datasets prepare FOLDER' checks them")
    inform("'biomedcoop datasets info NAME' tells more, 'biomedcoop datasets download NAME' gets the images")


@app.command("info")
def info(
    name: Annotated[str, typer.Argument(help="Name of a published dataset, e.g. busi.", show_default=False)],
    json: Json = False,
) -> None:
    """Show the card of a published dataset: images, classes, licence, known leakage, where it comes from."""
    from biomedcoop.data.download.datasets import find_entry
    from biomedcoop.data.readers.named import find_named

    entry = find_entry(name)
    if json:
        print_json(_facts(entry))
        return
    place = find_named(entry.name)
    check = f"'biomedcoop datasets prepare {place}' checks it"
    here = f"{place} (not checked; {check})" if place else f"no; run 'biomedcoop datasets download {entry.name}'"
    for title, text in {**entry.card, "on this machine": here}.items():
        print_text(f"{title}: {text}")


def _facts(entry: CatalogueEntry) -> dict[str, Any]:
    from biomedcoop.data.readers.named import find_named

    place = find_named(entry.name)
    return {**asdict(entry), "kind": entry.kind, "place": None if place is None else str(place)}


@app.command("download")
def download(
    names: Annotated[
        list[str],
        typer.Argument(
            help="Names of published datasets, or of MedMNIST files such as pathmnist_224.", show_default=False
        ),
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            help="Data folder. Default: $BIOMEDCOOP_DATA, else a folder in the user's cache.",
            show_default=False,
        ),
    ] = None,
    offline: Offline = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Download published datasets and verify every image; afterwards 'train --data NAME' finds them. This needs the network."""
    from biomedcoop.data.download.datasets import download_dataset
    from biomedcoop.data.readers.named import DATA_VARIABLE

    with progress_bar() as progress:
        _check_each(names, lambda name: download_dataset(name, to, offline=offline, progress=progress), json)
    if to is not None:
        inform(f"set {DATA_VARIABLE}={to.absolute()} to find datasets there by name")


@app.command("prepare")
def prepare(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders of published datasets, e.g. data/BUSI.", show_default=False)
    ],
    offline: Offline = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check images downloaded by other means and add the published split file. Exit status 1 if images are missing."""
    from biomedcoop.data.download.datasets import prepare_folder

    _check_each(folders, lambda folder: prepare_folder(folder, offline=offline), json)


def _check_each(items: Sequence[Item], action: Callable[[Item], DatasetCheck], json: bool) -> None:
    """Print a check for each item; an error of one does not stop the others. Exit with 2 for errors, 1 for missing images."""
    checks, errors = [], 0
    for item in items:
        try:
            check = action(item)
        except UserError as error:
            if len(items) == 1:
                raise
            errors += 1
            say(f"error: {error}")
            continue
        checks.append(check)
        if not json:
            print(check.sentence)
            print_first(f"missing: {key}" for key in check.missing)
    if json:
        print_json([check.to_dict() for check in checks])
    if errors or any(check.missing for check in checks):
        raise typer.Exit(2 if errors else 1)


@app.command("check")
def check(
    path: Annotated[str, typer.Argument(help="Dataset in any form of 'train --data'.", show_default=False)],
    shots: Annotated[
        int | None,
        typer.Option(
            "--shots", help="Training images per class of the planned training; by default as 'train' chooses."
        ),
    ] = None,
    split_file: SplitFile = None,
    for_testing: Annotated[
        bool, typer.Option("--for-testing", metavar="", help="Check the data for testing only: one class is enough.")
    ] = False,
    window: Window = None,
    frame: Frame = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Read every image once and report problems. Exit status 1 if a problem makes training wrong."""
    from biomedcoop.data.audit import check_dataset

    with progress_bar() as progress:
        report = check_dataset(
            path,
            shots,
            split_file,
            lambda done, total: progress("reading images", done, total),
            for_training=not for_testing,
            window=window or "auto",
            frame=frame or "all",
        )
    if json:
        print_json(report.to_dict())
    else:
        from rich.table import Table
        from rich.text import Text

        splits = [split for split, counts in report.counts.items() if any(counts.values())]
        table = Table("class", *splits, title=Text(report.name))
        for name in report.counts["train"]:
            table.add_row(Text(name), *(str(report.counts[split][name]) for split in splits))
        print_table(table)
        print_first(f"unreadable: {where}: {reason}" for where, reason in report.unreadable)
        print_first(f"same image: {', '.join(copies.keys)}" for copies in report.duplicates)
        print_first(f"group {group} is in: {', '.join(crossed)}" for group, crossed in report.crossing_groups.items())
        for note in report.notes:
            print(f"note: {note}")
        for warning in report.warnings:
            print(f"warning: {warning}")
        for problem in report.problems:
            print(f"problem: {problem}")
        if not report.problems:
            print("no problem found")
    if report.problems:
        raise typer.Exit(1)


@app.command("simulate")
def simulate(
    task: Annotated[str, typer.Argument(help="Simulated task: breast-ultrasound or kidney-ct.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="Folder to write.", show_default=False)],
    train: Annotated[int, typer.Option("--train", help="Training images per class.")] = 32,
    val: Annotated[int, typer.Option("--val", help="Validation images per class.")] = 8,
    test: Annotated[int, typer.Option("--test", help="Test images per class.")] = 60,
    seed: Annotated[int, typer.Option("--seed", help="Random seed of the images.")] = 0,
    difficulty: Annotated[
        float, typer.Option("--difficulty", help="Difficulty of the task, from 0 (clear) to 1 (hard).")
    ] = 0.5,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw a simulated dataset with masks of the lesions. The images show no patient and are not for medical use."""
    from biomedcoop.data.simulate import write_simulated

    name = f"simulated:{task}?difficulty={difficulty}&seed={seed}&train={train}&val={val}&test={test}"
    with progress_bar() as progress:
        data = write_simulated(name, out, overwrite, lambda done, total: progress("drawing", done, total))
    if json:
        print_json({"dataset": data.name, "folder": str(out), "images": len(data), "classes": list(data.class_names)})
    else:
        inform(f"{len(data)} simulated images in {out}")
