"""``biomedcoop evaluate``: test a saved classifier on labelled images."""

from __future__ import annotations

from typing import Annotated

import typer

from biomedcoop.cli.console import notes_said, print_json, print_table, progress_bar, say_notes
from biomedcoop.cli.options import (
    Data,
    Device,
    Json,
    Model,
    NewClasses,
    NewPrompts,
    OtherBackbone,
    Plugin,
    Precision,
    Quiet,
    SplitFile,
)


def evaluate(
    model: Model,
    data: Data,
    split: Annotated[
        str | None,
        typer.Option(
            "--split", help="Split to test on: train, val, test or all. Default: test if it exists, else all."
        ),
    ] = None,
    split_file: SplitFile = None,
    classes: NewClasses = None,
    prompts: NewPrompts = "auto",
    backbone: OtherBackbone = None,
    plugin: Plugin = None,
    device: Device = "cpu",
    precision: Precision = "float32",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Test a saved classifier on labelled images.

    If the data have no test split, --split test draws the same test split as 'train'.
    """
    from biomedcoop.api import evaluate as evaluate_classifier
    from biomedcoop.classifier import load
    from biomedcoop.data.name_lists import split_names
    from biomedcoop.data.readers.load import load_dataset

    classifier = load(model, backbone, device=device, precision=precision)
    if classes is not None:
        classifier = classifier.for_classes(split_names(classes), prompts)
    dataset = load_dataset(data, split_file=split_file, for_training=False)
    tests = bool(dataset.counts("test").any())
    if split == "test" and not tests:
        dataset = load_dataset(data, split_file=split_file)
    if split is None:
        split = "test" if tests else "all"
    say_notes(dataset.notes)
    with progress_bar() as progress:
        metrics = evaluate_classifier(classifier, dataset, split, progress=progress)
    if json:
        about = {"dataset": dataset.name, "simulated": dataset.simulated, "split": split, "notes": notes_said()}
        print_json({**about, **metrics.to_dict()})
        return
    from biomedcoop.report.terminal import class_table, comparison_table

    which = f"all {metrics.n_images} images" if split == "all" else f"{metrics.n_images} {split} images"
    title = f"{dataset.name}{' (simulated images)' if dataset.simulated else ''}: {which}"
    print_table(comparison_table({classifier.method: metrics}, title))
    print_table(class_table(metrics))
