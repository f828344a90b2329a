"""``biomedcoop train``: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from biomedcoop.cli.console import print_json, print_table, progress_bar, say_notes
from biomedcoop.cli.options import Backbone, Data, Device, Json, Overwrite, Precision, SplitFile, parse_settings


def train(
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="Run folder to write.", show_default=False)],
    method: Annotated[
        str, typer.Option("--method", help="Adaptation method ('biomedcoop methods list').")
    ] = "biomedcoop",
    backbone: Backbone = "mini",
    shots: Annotated[int, typer.Option("--shots", help="Training images per class.")] = 16,
    seed: Annotated[int, typer.Option("--seed", help="Draws the training images and orders the batches.")] = 1,
    compare: Annotated[
        str, typer.Option("--compare", help="Methods to test beside it, separated by commas; 'none' for none.")
    ] = "zero-shot",
    prompts: Annotated[
        str,
        typer.Option(
            "--prompts",
            help="Sentences about the classes: auto (the shipped library where it fits the images, else templates), "
            "library[:NAME], templates[:MODALITY], or a file: .json, .csv, .py, .txt, or a folder of .txt.",
        ),
    ] = "auto",
    modality: Annotated[
        str | None,
        typer.Option("--modality", help="Modality of the images, e.g. CT; auto needs it for data of your own."),
    ] = None,
    organ: Annotated[
        str | None,
        typer.Option("--organ", help="Organ that they show, e.g. kidney; auto needs it for data of your own."),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            help="paper (published settings, those of the dataset where there are any), base-to-novel (published for that "
            "protocol), default (one setting for every dataset), or fast (one that trains in about a tenth of the time).",
        ),
    ] = "paper",
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the method, e.g. --set epochs=50; may be repeated.")
    ] = None,
    split_file: SplitFile = None,
    repeat_shots: Annotated[bool, typer.Option("--repeat-shots", help="Draw small classes with repetition.")] = False,
    views: Annotated[
        str,
        typer.Option(
            "--views",
            help="What is learned from each training image: 1 (its centre crop), a number of random crops, or per-epoch (a new "
            "random crop in each epoch, as published; so many more images to encode).",
        ),
    ] = "1",
    device: Device = "cpu",
    precision: Precision = "float32",
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Train a classifier on a few images per class, test it, and write model, metrics and report.

    The test images are those of the data's test split, or a 30 % split drawn by class. Not a medical device.
    """
    settings = parse_settings(setting or [])
    from biomedcoop.api import run

    with progress_bar(quiet=json) as progress:
        report = run(
            data,
            out,
            method=method,
            backbone=backbone,
            shots=shots,
            seed=seed,
            compare=[name for word in compare.split(",") if (name := word.strip()) and name != "none"],
            split_file=split_file,
            overwrite=overwrite,
            prompts=prompts,
            modality=modality,
            organ=organ,
            recipe=recipe,
            settings=settings,
            repeat_shots=repeat_shots,
            views=views,
            device=device,
            precision=precision,
            progress=progress,
        )
    say_notes((*report.dataset.notes, *report.notes))
    if json:
        print_json(report.to_dict())
        return
    from biomedcoop.report.terminal import class_table, comparison_table

    simulated = " (simulated images)" if report.dataset.simulated else ""
    print_table(
        comparison_table(report.rows, f"{report.dataset.name}{simulated}: {report.metrics.n_images} test images")
    )
    print_table(class_table(report.metrics, f"{report.method}, by class"))
    print(f"report: {out / 'report.md'}\nmodel:  {out / 'model'}")
