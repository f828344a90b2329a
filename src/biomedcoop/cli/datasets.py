"""``biomedcoop datasets``: check a dataset before training, or draw a simulated dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from biomedcoop.cli.console import inform, print_first, print_json, print_table, progress_bar
from biomedcoop.cli.options import Json, Overwrite, Quiet, SplitFile

app = typer.Typer(help="Check datasets and draw simulated datasets.", no_args_is_help=True)


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
