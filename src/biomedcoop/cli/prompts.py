"""``biomedcoop prompts``: list, show, check, import or generate sentences that describe the classes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from biomedcoop.cli.console import inform, print_json, print_table, print_text, progress_bar, say_notes
from biomedcoop.cli.options import Device, Json, Quiet, SplitFile
from biomedcoop.cli.prompts_generate import Overwrite, generate_prompts
from biomedcoop.errors import UserError

if TYPE_CHECKING:
    from biomedcoop.backbones.base import Backbone

app = typer.Typer(help="Sentences that describe the classes.", no_args_is_help=True)

Classes = Annotated[
    str | None,
    typer.Option(
        "--classes",
        help="Class names, separated by commas. Put a name with a comma in double quotes.",
        show_default=False,
    ),
]
Modality = Annotated[
    str | None, typer.Option("--modality", help="Modality of the images, e.g. CT, ultrasound, histopathology.")
]
Organ = Annotated[str | None, typer.Option("--organ", help="Organ in the images, e.g. kidney, breast.")]
Out = Annotated[Path, typer.Option("--out", help="JSON file to write.", show_default=False)]
Checked = Annotated[
    str,
    typer.Argument(
        help="File of sentences, 'library:NAME', or 'library' for all files of the library.", show_default=False
    ),
]


@app.command("list")
def list_prompts(json: Json = False) -> None:
    """List the tasks of the shipped library and the modalities with templates."""
    from biomedcoop.prompts.library import library, template_sets

    tasks = [
        {
            "name": name,
            "modality": content["modality"],
            "organ": content["organ"],
            "sentences": {label: len(sentences) for label, sentences in content["classes"].items()},
        }
        for name, content in library().items()
    ]
    templates = {modality: len(texts) for modality, texts in template_sets().items()}
    if json:
        print_json({"library": tasks, "templates": templates})
        return
    from rich.table import Table

    table = Table("library:", "modality", "organ", "classes", "sentences")
    for task in tasks:
        names, counts = list(task["sentences"]), sum(task["sentences"].values())
        table.add_row(task["name"], task["modality"], task["organ"], ", ".join(names), str(counts))
    print_table(table)
    print_text("templates: " + ", ".join(templates))


@app.command("show")
def show_prompts(
    source: Annotated[str, typer.Argument(help="'library:NAME', 'templates:MODALITY' or a file.", show_default=False)],
    only: Annotated[str | None, typer.Option("--class", help="Show only this class.")] = None,
    json: Json = False,
) -> None:
    """Print the sentences of every class."""
    from biomedcoop.data.names import fold
    from biomedcoop.prompts.sources import read_source

    table = read_source(source)
    if only is not None:
        chosen = {name: texts for name, texts in table.items() if fold(name) == fold(only)}
        if not chosen:
            raise UserError(f"{source} has no class '{only}'; it has: {', '.join(table)}")
        table = chosen
    if json:
        print_json(table)
        return
    for name, texts in table.items():
        print(f"{name} ({len(texts)})")
        for text in texts:
            print(f"  {text}")


@app.command("check")
def check(
    source: Checked,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="Images of the task, as for 'train --data'. The sentences are checked for their classes and tested on them.",
        ),
    ] = None,
    classes: Classes = None,
    backbone: Annotated[
        str, typer.Option("--backbone", help="Backbone that encodes the sentences, or 'none' to check the text only.")
    ] = "mini",
    split: Annotated[
        str | None,
        typer.Option("--split", help="Split of --data to test on. Default: val if it exists, else train."),
    ] = None,
    threshold: Annotated[
        float, typer.Option("--threshold", help="Threshold τ of the outlier test, in standard deviations.")
    ] = 1.5,
    split_file: SplitFile = None,
    device: Device = "cpu",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check sentences. Exit status 1 if a problem makes training with them wrong."""
    from biomedcoop.api import check_prompts
    from biomedcoop.cli.prompt_report import print_report, print_summary
    from biomedcoop.data.readers.load import load_dataset
    from biomedcoop.prompts.class_names import parse_classes
    from biomedcoop.prompts.library import library

    if data is not None and classes is not None:
        raise UserError("--data and --classes both name the classes; give one of them")
    if split is not None and data is None:
        raise UserError("--split names images of --data; give --data too")
    if source.partition(":")[0] == "templates":
        raise UserError(
            "templates are the same for every class, so there is nothing to check; name a file of sentences"
        )
    if not threshold > 0:
        raise UserError(f"--threshold {threshold}: must be above 0, e.g. 1.5")
    names = parse_classes(classes) if classes is not None else None
    dataset = load_dataset(data, split_file=split_file) if data is not None else None
    whole = source == "library" and dataset is None and names is None
    if source == "library" and not whole:
        raise UserError("'library' means all its files; with --data or --classes name one file, e.g. library:busi")
    encoder: Backbone | str | None = None if backbone == "none" else backbone
    if encoder is not None and whole:
        # loaded once for all files; for one file, check_prompts loads the backbone after it has read the file
        from biomedcoop.backbones import load_backbone

        encoder = load_backbone(backbone, device=device)
    with progress_bar() as progress:
        reports = []
        sources = [f"library:{name}" for name in library()] if whole else [source]
        for done, one in enumerate(sources, start=1):
            reports.append(
                check_prompts(
                    one,
                    data=dataset,
                    class_names=names,
                    backbone=encoder,
                    split=split,
                    threshold=threshold,
                    device=device,
                    progress=progress,
                )
            )
            if whole:
                progress("checking", done, len(sources))
    if json:
        print_json([report.to_dict() for report in reports] if whole else reports[0].to_dict())
    elif whole:
        print_summary(reports)
    else:
        print_report(reports[0])
    if any(report.problems for report in reports):
        raise typer.Exit(1)


@app.command("import")
def import_prompts(
    source: Annotated[
        str,
        typer.Argument(
            help="JSON, CSV (columns class, sentence), folder of .txt files, or Python file with a dict (FILE.py or FILE.py:NAME). "
            "Python files are read, not run.",
            show_default=False,
        ),
    ],
    out: Out,
    classes: Classes = None,
    modality: Modality = None,
    organ: Organ = None,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Convert sentences from a file or folder into a JSON file for 'train --prompts'."""
    from biomedcoop.prompts.checks import check_sentences
    from biomedcoop.prompts.class_names import parse_classes
    from biomedcoop.prompts.writing import check_output, import_sentences

    check_output(out, overwrite)
    names = None if classes is None else parse_classes(classes)
    table = import_sentences(source, out, class_names=names, modality=modality, organ=organ)
    kinds = Counter(fault.kind for fault in check_sentences(table))
    if json:
        print_json({"out": str(out), "sentences": {n: len(t) for n, t in table.items()}, "faults": dict(kinds)})
        return
    inform(f"{sum(map(len, table.values()))} sentences of {len(table)} classes in {out}")
    if kinds:
        faults = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
        say_notes([f"{faults}; 'biomedcoop prompts check {out}' shows them"])


app.command("generate")(generate_prompts)
