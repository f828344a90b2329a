"""``biomedcoop explain``: show where in images the score of a class comes from."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from biomedcoop.cli.console import (
    inform,
    notes_said,
    print_json,
    print_table,
    print_tables,
    print_text,
    progress_bar,
    say,
    say_notes,
)
from biomedcoop.cli.options import Device, Json, OtherBackbone, Overwrite, Plugin, Precision, Quiet, split_list
from biomedcoop.explain.doubts import counted, doubtful_maps
from biomedcoop.explain.kinds import DEFAULT_MAP, MAPS, MOST_CHECKED

if TYPE_CHECKING:
    from biomedcoop.classifier import Classifier
    from biomedcoop.explain.training_images import TrainingImages

MOST_CASES = 3
"""Images whose sentences and similar images are printed; more would hide the maps' facts."""

MAP_HELP = (
    f"Kind of map: {', '.join(MAPS)}. {' and '.join(name for name, kind in MAPS.items() if kind.needs == 'attention')} need a "
    "vision transformer (ViT); attention-rollout is the same for every class."
)
if doubtful := doubtful_maps():
    MAP_HELP += f" Failed or missing checks, by kind of image tower: {doubtful}."


def explain(
    images: Annotated[
        list[Path], typer.Argument(help="Image files, folders, or tables with a column 'path'.", show_default=False)
    ],
    model: Annotated[
        Path,
        typer.Option(
            "--model", help="Run folder of 'train', saved classifier, or hf://OWNER/NAME.", show_default=False
        ),
    ],
    class_name: Annotated[
        str | None, typer.Option("--class", help="Class to explain. Default: the predicted class of each image.")
    ] = None,
    map: Annotated[str, typer.Option("--map", help=MAP_HELP)] = DEFAULT_MAP,
    layer: Annotated[
        str | None,
        typer.Option("--layer", help="Layer of the image tower. Default: a late one with a spatial map."),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            help="Methods to compare in one contact sheet, separated by commas, e.g. zero-shot,coop,kgcoop,prograd,biomedcoop. "
            "Those that the run did not train are trained from its run.json, on the same images and with the same seed.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder to write: a picture of each image, or the contact sheet, and saliency.json."
        ),
    ] = None,
    values: Annotated[
        bool, typer.Option("--values", metavar="", help="Also write the values of each map as .npy, float32 [H, W].")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", metavar="", help="Check whether the map is true, on one labelled dataset in place of the images."
        ),
    ] = False,
    masks: Annotated[
        Path | None,
        typer.Option(
            "--masks",
            help="With --check: folder of lesion masks under the relative paths of the images, or named as them. Default: 'masks' "
            "in the folder of the dataset, else masks beside the images (1_mask.png).",
        ),
    ] = None,
    most: Annotated[
        int | None,
        typer.Option(
            "--images",
            min=1,
            help=f"With --check: number of images to check, equally many of each class. More take more time. "
            f"Default: {MOST_CHECKED}.",
            show_default=False,
        ),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", metavar="", help="Go on after images that cannot be read.")
    ] = False,
    backbone: OtherBackbone = None,
    plugin: Plugin = None,
    device: Device = "cpu",
    precision: Precision = "float32",
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show where in images the score of a class comes from. Without --out, print where each map is large.

    Below each map stand the sentences that the image agrees with most, and the most similar training images where --model is a run
    folder whose data are still there; not with --methods.

    A map explains the score that the model gives to one class. It does not show that the answer is right. Most backbones see
    the centre square of an image, and pictures show the rest in grey; a SigLIP sees the whole image, squashed. Exit status 1 if
    an image cannot be read (with --skip-bad; without, the command stops there). The maps made before that, or before an
    interruption, are kept in a new --out.

    Not a medical device.
    """
    from biomedcoop.classifier import load
    from biomedcoop.data.readers.unlabelled import find_images
    from biomedcoop.drawing import letters_noted
    from biomedcoop.errors import UserError
    from biomedcoop.evaluation.wording import count
    from biomedcoop.explain.contact_sheet import retrained
    from biomedcoop.explain.maps import layer_for
    from biomedcoop.explain.saliency import class_number
    from biomedcoop.explain.writing import CONTENTS, FACTS, explain_by_methods, explain_images, write_facts
    from biomedcoop.output import check_new_folder, new_folder

    for name, given in (("--masks", masks), ("--images", most)):
        if given is not None and not check:
            raise UserError(f"{name} belongs to --check; add --check, or leave {name} out")
    if check:
        if len(images) > 1 or out or values or skip_bad or methods or class_name or layer:
            raise UserError(
                "--check takes one dataset and, of the other options of maps, only --map, --masks and --images"
            )
        print_check(load(model, backbone, device=device, precision=precision), str(images[0]), map, masks, most, json)
        return
    if out is None and values:
        raise UserError("--values writes files; give a folder with --out")
    if methods is not None and (values or skip_bad):
        raise UserError("--values and --skip-bad belong to single pictures; leave them out with --methods")
    if out is not None:
        check_new_folder(out, overwrite, FACTS, CONTENTS)
    classifier = load(model, backbone, device=device, precision=precision)
    found = list(find_images(images, tell=lambda note: say_notes([note]), reading=classifier.reading))
    layer_for(classifier, map, layer)
    class_number(classifier, class_name)
    place = nullcontext() if out is None else new_folder(out, overwrite=overwrite, mark=FACTS, contents=CONTENTS)
    stopped: UserError | KeyboardInterrupt | None = None
    with progress_bar() as progress, letters_noted(), place as folder:
        if methods is None:
            explained = []
            try:
                for one in explain_images(
                    classifier,
                    found,
                    class_name,
                    map,
                    layer,
                    folder=folder,
                    values=values,
                    skip_bad=skip_bad,
                    progress=progress,
                    total=len(found),
                    training=training_of(classifier, model),
                ):
                    explained.append(one)
            except (UserError, KeyboardInterrupt) as error:
                if out is None or out.exists() or not explained:  # a part must not replace an earlier result
                    raise
                stopped = error
            rows, of_methods = [row for row, _ in explained], 1
            cases = [(row, case) for row, case in explained if case is not None]
        else:
            classifiers = retrained(model, classifier, split_list(methods), progress)
            rows = explain_by_methods(classifier, classifiers, found, class_name, map, layer, folder, progress)
            cases, of_methods = [], len(classifiers)
        if folder is not None:
            write_facts(folder, rows)
    bad = sum("error" in row for row in rows)
    if stopped is not None:
        kept = f"{len(rows) - bad} of {count(len(found), 'map')} are kept in {out}"
        kind = KeyboardInterrupt if isinstance(stopped, KeyboardInterrupt) else UserError
        raise kind(f"{stopped}; {kept}" if str(stopped) else kept) from stopped
    if json:
        print_json({"out": None if out is None else str(out), "maps": rows, "unreadable": bad, "notes": notes_said()})
    elif out is None:
        print_facts(rows)
        for row, case in cases[:MOST_CASES]:
            print_text(row["path"])
            print_tables(case.tables(), [note for note in case.notes if note not in row["warnings"]])
            print()
        if len(cases) > MOST_CASES:
            inform(f"note: sentences and similar images of {MOST_CASES} images are printed; --json or --out give all")
    names = short_names([row["path"] for row in rows])
    for text in counted([(name, row["warnings"]) for name, row in zip(names, rows, strict=True) if "error" not in row]):
        inform(f"note: {text}")
    if out is not None:
        maps = count(len(rows) - bad, "map")
        inform(
            f"{maps} in {out}" if methods is None else f"{maps} of {count(of_methods, 'method')} on one sheet in {out}"
        )
    if bad:
        say(f"{bad} of {len(rows)} images cannot be read")
        raise typer.Exit(1)


def short_names(paths: list[str]) -> list[str]:
    """The names of files, or their paths where different files have one name."""
    return paths if len({Path(path).name for path in paths}) < len(set(paths)) else [Path(path).name for path in paths]


def training_of(classifier: Classifier, model: Path) -> TrainingImages | None:
    """The training images that a run folder still gives access to; None, with a note, if there are none."""
    from biomedcoop.errors import UserError
    from biomedcoop.explain.training_images import training_images

    try:
        return training_images(classifier, model)
    except (UserError, OSError) as error:
        say_notes([f"Similar training images are not shown: {error}."])
        return None


def print_check(
    classifier: Classifier, source: str, map: str, masks: Path | None, most: int | None, json: bool
) -> None:
    """Check a map on a labelled dataset and print a line for each measure."""
    from rich.table import Table

    from biomedcoop.data.masks import FOLDER
    from biomedcoop.data.readers.load import read_dataset
    from biomedcoop.data.readers.walk import BESIDE
    from biomedcoop.data.sampling.split import CROSS_VALIDATES
    from biomedcoop.explain.check import check_saliency

    data = read_dataset(source, reading=classifier.reading)
    # the check uses these masks, and trains nothing
    needless = CROSS_VALIDATES, *((BESIDE, f"folder {FOLDER} ") if masks is None else ())
    say_notes(note for note in data.notes if not any(words in note for words in needless))
    with progress_bar() as progress:
        found = check_saliency(
            classifier, data, [map], masks, images=MOST_CHECKED if most is None else most, progress=progress
        )
    if json:
        print_json({**found.to_dict(), "notes": notes_said()})
        return
    columns, rows = found.table()
    table = Table()
    for place, title in enumerate(("measure", *(row[0] for row in rows))):
        table.add_column(title, justify="right" if place else "left")
    for cells in list(zip(columns, *rows, strict=True))[1:]:
        table.add_row(*cells)
    print_table(table)


def print_facts(rows: list[dict[str, Any]]) -> None:
    """Print a line for each map on stdout."""
    from rich.table import Table

    table = Table(
        caption="Area above half: share of what the model sees where the map is above the middle of its range. "
        "A small area is a sharp map."
    )
    for title in ("image", "method", "class"):
        table.add_column(title)
    for title in ("probability", "peak (x, y)", "area above half"):
        table.add_column(title, justify="right")
    for row in rows:
        if "error" in row:
            table.add_row(row["path"], "", f"cannot be read: {row['error']}", "", "", "")
            continue
        peak = "none" if row["peak"] is None else "{}, {}".format(*row["peak"])
        table.add_row(
            row["path"],
            row["method"],
            row["class"],
            f"{row['probability']:.3f}",
            peak,
            f"{100 * row['area_above_half']:.0f} %",
        )
    print_table(table)
