"""``biomedcoop evaluate``: a saved classifier on labelled images."""

from __future__ import annotations

from typing import Annotated

import typer

from biomedcoop.cli.console import print_json, print_table, progress_bar, say
from biomedcoop.cli.options import Data, Device, Json, Model, OtherBackbone, SplitFile


def evaluate(
    model: Model,
    data: Data,
    split: Annotated[str, typer.Option("--split", help="train, val, test or all.")] = "test",
    split_file: SplitFile = None,
    backbone: OtherBackbone = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Test a saved classifier on labelled images."""
    from biomedcoop.api import evaluate as evaluate_classifier
    from biomedcoop.classifier import load
    from biomedcoop.data.readers import load_dataset

    classifier = load(model, backbone, device=device)
    dataset = load_dataset(data, split_file=split_file)
    with progress_bar(quiet=json) as progress:
        metrics = evaluate_classifier(classifier, dataset, split, progress=progress)
    for note in dataset.notes:
        say(f"note: {note}")
    if json:
        print_json({"dataset": dataset.name, "simulated": dataset.simulated, "split": split, **metrics.to_dict()})
        return
    from biomedcoop.report.terminal import class_table, comparison_table

    simulated = " (simulated images)" if dataset.simulated else ""
    print_table(
        comparison_table({classifier.method: metrics}, f"{dataset.name}{simulated}: {metrics.n_images} {split} images")
    )
    print_table(class_table(metrics))
