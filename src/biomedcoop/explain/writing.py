"""The folder of ``biomedcoop explain``: a picture for each image or one contact sheet, and the facts as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from biomedcoop.classifier.classifier import Classifier
from biomedcoop.data.readers.unlabelled import ListedImage
from biomedcoop.errors import ImageError, UserError
from biomedcoop.explain.case import Case, case
from biomedcoop.explain.contact_sheet import contact_sheet
from biomedcoop.explain.figures import save_figure
from biomedcoop.explain.saliency import saliency_stream
from biomedcoop.explain.training_images import TrainingImages
from biomedcoop.progress import Progress

FACTS, PICTURES, SHEET = "saliency.json", "maps", "contact-sheet.png"
CONTENTS = (FACTS, PICTURES, SHEET)

Row = dict[str, Any]


def file_names(paths: Iterable[Path]) -> Iterator[str]:
    """A name without ending for each file's picture, different for all on any file system: the file's own, or with a number.

    Example:
        >>> list(file_names([Path("a/scan.png"), Path("b/Scan.png"), Path("scan-2.png")]))
        ['scan', 'Scan-2', 'scan-2-2']
    """
    taken: set[str] = set()
    counts: dict[str, int] = {}
    for path in paths:
        name = path.stem
        while name.casefold() in taken:
            counts[path.stem.casefold()] = number = counts.get(path.stem.casefold(), 1) + 1
            name = f"{path.stem}-{number}"
        taken.add(name.casefold())
        yield name


def explain_images(
    classifier: Classifier,
    images: Iterable[Path | ListedImage],
    class_name: str | None,
    map: str,
    layer: str | None,
    *,
    folder: Path | None = None,
    values: bool = False,
    skip_bad: bool = False,
    progress: Progress | None = None,
    total: int = 0,
    training: TrainingImages | None = None,
) -> Iterator[tuple[Row, Case | None]]:
    """Explain images one by one; yields the facts of each with its case, and writes its picture.

    Args:
        class_name, map, layer: see :func:`biomedcoop.saliency`.
        folder: where to write the pictures; none are written without it.
        values: also write each map as ``.npy``.
        skip_bad: go on after an image that cannot be read; its facts are its path and the ``error``, and it has no case.
        progress: called with the number of images done of ``total``.
        training: the training images that each image is compared with.

    Raises:
        UserError: an image cannot be read, unless ``skip_bad``; or see :func:`biomedcoop.saliency`.
    """
    pictures = None if folder is None else folder / PICTURES
    if pictures is not None:
        pictures.mkdir()
    listed = [image if isinstance(image, ListedImage) else ListedImage(image, str(image), {}) for image in images]
    stream = saliency_stream(classifier, (image.file for image in listed), class_name, map, layer)
    names = file_names(Path(str(image.file)) for image in listed)
    for done, (image, name, (_, found)) in enumerate(zip(listed, names, stream, strict=True), start=1):
        if isinstance(found, ImageError):
            if not skip_bad:
                raise UserError(f"{found}; or pass --skip-bad to go on after such images") from found
            yield {"path": image.path, "error": found.reason}, None
        else:
            of_image = case(classifier, image.file, training)
            row = {"path": image.path, **found.to_dict(), "case": of_image.to_dict()}
            if pictures is not None:
                save_figure(found.figure(of_image), pictures / f"{name}.png")
                row["picture"] = f"{PICTURES}/{name}.png"
                if values:
                    np.save(pictures / f"{name}.npy", found.values)
                    row["values"] = f"{PICTURES}/{name}.npy"
            yield row, of_image
        if progress is not None:
            progress("explaining", done, total)


def explain_by_methods(
    classifier: Classifier,
    classifiers: Mapping[str, Classifier],
    images: Iterable[Path | ListedImage],
    class_name: str | None,
    map: str,
    layer: str | None,
    folder: Path | None,
    progress: Progress | None = None,
) -> list[Row]:
    """Explain images by several methods, write the contact sheet, and return the facts of each map; see :func:`contact_sheet`.

    The class of each image is that which ``classifier`` predicts, unless ``class_name`` names one.
    """
    listed = [image if isinstance(image, ListedImage) else ListedImage(image, str(image), {}) for image in images]
    sheet = contact_sheet(
        classifiers,
        [image.file for image in listed],
        class_name,
        map,
        layer,
        chooser=classifier,
        names=[Path(image.path).name for image in listed],
        progress=progress,
    )
    if folder is not None:
        save_figure(sheet.figure(), folder / SHEET)
    paths = (image.path for image in listed for _ in classifiers)
    return [{"path": path, **facts} for path, facts in zip(paths, sheet.to_dict(), strict=True)]


def write_facts(folder: Path, rows: list[Row]) -> None:
    """Write the facts of maps as JSON, and remove the files that no row names: an interruption may leave one half-written."""
    named = {row.get(kind) for row in rows for kind in ("picture", "values")}
    for file in folder.glob(f"{PICTURES}/*"):
        if f"{PICTURES}/{file.name}" not in named:
            file.unlink()
    text = json.dumps(rows, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / FACTS).write_text(text + "\n", encoding="utf-8")
