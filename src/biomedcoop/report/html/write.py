"""Write ``report.html`` from a folder of a run or an evaluation."""

from __future__ import annotations

import os
from pathlib import Path

from biomedcoop.classifier.classifier import Classifier
from biomedcoop.data.dataset import Dataset
from biomedcoop.data.readers.named import user_path
from biomedcoop.display import shown
from biomedcoop.errors import UserError, notify
from biomedcoop.evaluation.curves import SPECIFICITY, check_specificity
from biomedcoop.output import check_new_file, write_atomically
from biomedcoop.progress import Progress, ProgressOption
from biomedcoop.report.reading import read_report

HTML = "report.html"

GENERATOR = b'<meta name="generator" content="biomedcoop report">'
"""Mark near the start of every page; a file without it is not replaced."""


def write_html(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    specificity: float = SPECIFICITY,
    images: bool | None = None,
    progress: ProgressOption = None,
) -> Path:
    """Write the page of a run folder again: one HTML file that needs no network; the same as ``biomedcoop report``.

    Args:
        run: folder that ``train`` or ``evaluate`` wrote.
        out: file to write, with the ending .html or .htm; by default ``report.html`` in the folder. An earlier report is replaced.
        specificity: specificity at which the sensitivity of each class is stated, between 0 and 1.
        images: False leaves out all images, their maps and their file names. By default they are shown, unless the run or
            the evaluation was made with ``images=False``.
        progress: see :func:`biomedcoop.fit`.

    Returns:
        The path of the page. A warning says what is left out because images or model are no longer there.

    Raises:
        UserError: the folder is incomplete, an argument is out of range, or the file cannot be written.

    Example:
        >>> import tempfile
        >>> import biomedcoop as bc
        >>> data = "simulated:breast-ultrasound?train=4&val=1&test=2"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = bc.train(data, f"{folder}/run", method="tip-adapter", shots=2, n_bootstrap=40, html=False)
        ...     bc.write_html(f"{folder}/run", images=False).name
        'report.html'
    """
    check_specificity(specificity)
    folder = user_path(run)
    path = folder / HTML if out is None else user_path(out)
    if out is not None:
        _check_page(path)
    with shown(progress) as tell:
        missing = write_page(folder, path, specificity=specificity, images=images, progress=tell)
    notify(missing)
    return path


def _check_page(path: Path) -> None:
    """Refuse a place that is no HTML file, or that holds a file other than an earlier report.

    Raises:
        UserError: see above; or the file cannot be written.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{path}: the report is an HTML file; give a name that ends in .html")
    check_new_file(path, overwrite=True)
    if path.exists():
        try:
            with path.open("rb") as file:
                ours = GENERATOR in file.read(500)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); choose another name") from error
        if not ours:
            raise UserError(f"{path} is not a report of biomedcoop and is not replaced; choose another name")


def write_page(
    folder: Path,
    path: Path,
    *,
    specificity: float = SPECIFICITY,
    images: bool | None = None,
    classifier: Classifier | None = None,
    data: Dataset | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """:func:`write_html` with what is loaded already; returns why something was left out, a sentence each."""
    from biomedcoop.report.html.page import render
    from biomedcoop.report.html.sources import find_sources

    report = read_report(folder)
    keys, class_names = report.comparison.predictions.keys, report.comparison.predictions.class_names
    sources = find_sources(folder, keys, class_names, classifier, data)
    visible = bool(sources.visible) if images is None else images
    page = render(report, sources, folder, specificity=specificity, images=visible, progress=progress)
    write_atomically(path, page.encode())
    notes = [f"{sentence} {error}".strip() for sentence, error in sources.missing.items()]
    if images is None and sources.visible is False:
        made = "the run was trained" if sources.request else "the evaluation was made"
        notes.append(f"images and their names are left out, because {made} with --no-images; '--images' shows them")
    elif images is None and sources.visible is None:
        notes.append("the names of the images are left out too; '--images' shows them")
    return notes
