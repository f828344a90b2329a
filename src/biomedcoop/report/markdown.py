"""``report.md``: the training, the test and its results with their uncertainty, in words and tables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from biomedcoop.errors import UserError
from biomedcoop.evaluation.bootstrap import Estimate
from biomedcoop.evaluation.cautions import group_cautions
from biomedcoop.evaluation.metrics import Metrics
from biomedcoop.output import write_atomically
from biomedcoop.report.figures import confusion_figure
from biomedcoop.report.run import DatasetSummary, RunReport
from biomedcoop.report.table import Table
from biomedcoop.report.tables import class_cells, comparison_cells, spread_cells

FEW_TEST_IMAGES = 10

SIMULATED = (
    "> **Simulated images.** A program drew these images; no patient was imaged. "
    "The numbers show that the software works and say nothing about real examinations."
)


NUMBERS = (
    "Percent, with 95 % bootstrap intervals in brackets; – marks a value that is not defined on these test images. The "
    "calibration error is the gap between the predicted probability and the share of correct predictions (expected "
    "calibration error, 15 equal-width bins). Lower is better. The calibration error does not measure accuracy, and on few "
    "images it is too high."
)


def render(report: RunReport) -> str:
    """The report as Markdown: equal reports give equal text."""
    data, metrics = report.dataset, report.metrics
    sections = [
        f"# {escape(report.title)}",
        *([SIMULATED] if data.simulated else []),
        *(f"> **The test images are not independent.** {escape(leak)}" for leak in report.leaks),
        " ".join(_summary(report)),
        "Not a medical device.",
        "## Results",
        NUMBERS,
        _escaped(comparison_cells(report.rows)),
        *_spread(report),
        f"## Each class ({escape(report.method)})",
        _escaped(class_cells(metrics)),
        f"![Confusion matrix of {escape(report.method)}]({report.figure})",
        "Test images by true class (rows) and predicted class (columns):",
        _escaped(_confusion_cells(metrics)),
        "## How to read the numbers",
        _bullets(_cautions(report)),
        "## Data",
        _data(data),
        "## Settings",
        _escaped(Table(["setting", "value"], _settings(report), "ll")),
        "## How to reproduce",
        *([f"```\n{report.command}\n```"] if report.command else []),
        "The same images, settings, seed, software versions and CPU thread count give the same numbers, bit for bit.",
        _escaped(Table(["software", "version"], list(report.versions.items()), "ll")),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def write_report(report: RunReport, folder: str | Path) -> Path:
    """Write ``report.md``, ``metrics.json`` and the confusion figure; returns the path of ``report.md``.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}; choose another one") from error
    title = f"{report.method} on {report.dataset.name}" + (" (simulated images)" if report.dataset.simulated else "")
    content = json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    confusion_figure(report.metrics, folder / report.figure, title)
    write_atomically(folder / "metrics.json", content.encode())
    write_atomically(folder / "report.md", render(report).encode())
    return folder / "report.md"


def escape(text: str) -> str:
    """Escape Markdown's special characters and replace line breaks by blanks, so that a name is shown literally."""
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", " ".join(text.split()))


def _summary(report: RunReport) -> Iterator[str]:
    metrics, data, method = report.metrics, report.dataset, escape(report.method)
    c, task = len(data.class_names), f"{len(data.class_names)} classes"
    shown = " ".join(w for w in (data.organ, data.modality) if w)
    images = f"{escape(shown)} images ({escape(data.name)})" if shown else f"images of {escape(data.name)}"
    learned = "needed no training images"
    if report.shots == "all":
        learned = "was trained on all training images"
    elif isinstance(report.shots, int):
        learned = f"was trained on {_count(report.shots, 'image')} per class ({report.shots * c} in total)"
    yield f"**{method}** {learned}, on the frozen backbone {escape(report.backbone)}, to tell {task} of {images} apart."
    yield f"On {_count(metrics.n_images, 'test image')} it is right for **{_words(metrics.accuracy)}**."
    compared = []
    for name, other in list(report.rows.items())[1:]:
        words = f"{escape(name)} for {_words(other.accuracy)}"
        if (difference := report.differences.get(name)) is not None:
            words += f", {_difference(difference)}"
        compared.append(words)
    if compared:
        yield f"For comparison, on the same images: {'; '.join(compared)}."
    yield _confused(metrics)


def _spread(report: RunReport) -> list[str]:
    """Mean and spread over the seeds, if there are several."""
    if not report.by_seed:
        return []
    if report.folds:
        over = f"divisions into {report.folds} folds; the table above shows the first"
    else:
        over = "seeds, each with its own draw of images; the table above shows the first, whose model was saved"
    return [
        f"Mean ± standard deviation over {len(next(iter(report.by_seed.values())))} {over}:",
        _escaped(spread_cells(report.by_seed)),
    ]


def _words(estimate: Estimate) -> str:
    if estimate.value is None:
        return "an unknown share"
    if estimate.low is None or estimate.high is None:
        return f"{100 * estimate.value:.1f} % (without an interval)"
    return f"{100 * estimate.value:.1f} % (95 % interval {100 * estimate.low:.1f}–{100 * estimate.high:.1f} %)"


def _difference(d: Estimate) -> str:
    if d.value is None:
        return "by an unknown difference"
    if d.low is None or d.high is None:
        return f"a difference of {100 * d.value:+.1f} points (without an interval)"
    sure = "" if d.low > 0 or d.high < 0 else ", so these test images cannot tell the two apart"
    return f"a difference of {100 * d.value:+.1f} points ({100 * d.low:+.1f} to {100 * d.high:+.1f}){sure}"


def _confused(metrics: Metrics) -> str:
    counts = np.array(metrics.confusion)
    errors = np.triu(counts + counts.T, k=1)
    if not errors.any():
        return "No test image was misclassified."
    i, j = (int(k) for k in np.unravel_index(errors.argmax(), errors.shape))
    if counts[j, i] > counts[i, j]:
        i, j = j, i
    a, b = (f"“{escape(metrics.class_names[k])}”" for k in (i, j))
    return (
        f"The two classes confused most often are {a} and {b}: {counts[i, j]} of {counts[i].sum()} {a} images were "
        f"taken for {b}, {counts[j, i]} of {counts[j].sum()} {b} images for {a}."
    )


def _cautions(report: RunReport) -> Iterator[str]:
    metrics = report.metrics
    if metrics.n_groups is None:
        unit = "test images; if several show one patient, the true uncertainty is larger"
    else:
        unit = f"{metrics.n_groups} groups (such as patients) that the test images come from"
    if metrics.n_groups != 1:
        yield f"The intervals come from {metrics.n_bootstrap} resamples of the {unit}."
    yield from map(escape, group_cautions(metrics))
    if report.shots is not None:
        yield (
            f"The intervals cover the choice of test images only. Other training images (seed {report.seed} here) give other "
            "results; train with several seeds to see the difference."
        )
    few = [c for c in metrics.classes if 0 < c.support < FEW_TEST_IMAGES]
    for c in few:
        yield f"“{escape(c.name)}” has only {_count(c.support, 'test image')}: its numbers say little."
    for c in metrics.classes:
        if not c.support:
            yield f"“{escape(c.name)}” has no test image: it has no sensitivity and no AUROC, and the means leave it out."
    if sum(c.support > 0 for c in metrics.classes) == 1:
        yield "All test images are of one class: there is no AUROC, and no specificity of that class."
    cells = [metrics.accuracy, *(e for c in metrics.classes for e in (c.sensitivity, c.specificity, c.precision))]
    if any(e.value in (0.0, 1.0) and e.value == e.low == e.high for e in cells):
        yield "An interval such as 100.0–100.0 means that these images show no error; other images may."
    if "majority class" in report.rows:
        yield (
            "The row “majority class” always predicts the largest class of the test split: the best accuracy without "
            "looking at any image."
        )
    yield from (escape(note) for note in report.notes)


def _data(data: DatasetSummary) -> str:
    splits = list(data.counts)
    rows = [[name, *(str(data.counts[s][k]) for s in splits)] for k, name in enumerate(data.class_names)]
    rows.append(["all", *(str(sum(data.counts[s])) for s in splits)])
    facts = [f"Dataset: {escape(data.name)}{' (simulated)' if data.simulated else ''}"]
    facts += [f"{what}: {escape(v)}" for what, v in (("Modality", data.modality), ("Organ", data.organ)) if v]
    facts += [escape(note) for note in (*data.notes, *data.image_notes)]
    return _bullets(facts) + "\n\nImages per class and split:\n\n" + _escaped(Table(["class", *splits], rows))


def _settings(report: RunReport) -> list[list[str]]:
    shots = {"None": "none", "all": "all training images"}.get(str(report.shots), str(report.shots))
    first = [["method", report.method], ["backbone", report.backbone], ["backbone fingerprint", report.fingerprint]]
    return [
        *first,
        ["shots", shots],
        ["seed", str(report.seed)],
        *(
            [name, json.dumps(value) if not isinstance(value, str) else value]
            for name, value in report.settings.items()
        ),
    ]


def _confusion_cells(metrics: Metrics) -> Table:
    rows = [[name, *map(str, row)] for name, row in zip(metrics.class_names, metrics.confusion, strict=True)]
    return Table(["true \\ predicted", *metrics.class_names], rows)


def _escaped(table: Table) -> str:
    cells = [[escape(str(cell)) for cell in row] for row in (table.columns, *table.rows)]
    return Table(cells[0], cells[1:], table.align).markdown()


def _bullets(sentences: Iterator[str] | list[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
