"""``report.md``: the verdict, the training, the test and its results with their uncertainty, in words and tables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from biomedcoop.evaluation.comparison import MAJORITY
from biomedcoop.evaluation.metrics import Metrics
from biomedcoop.evaluation.wording import count, mean_count
from biomedcoop.report.run import DatasetSummary, RunReport
from biomedcoop.report.subgroups import subgroup_cells
from biomedcoop.report.table import Table
from biomedcoop.report.tables import class_cells, comparison_cells, ranked_cells, spread_cells

SIMULATED = (
    "> **Simulated images.** A program drew these images; no patient was imaged. "
    "The numbers show that the software works and say nothing about real examinations."
)


NUMBERS = (
    "Percent, with 95 % intervals in brackets (bootstrap; Wilson for shares of 0 and 100); – marks a value that is not defined on "
    "these test images. The calibration error is the gap between the predicted probability and the share of correct predictions "
    "(expected calibration error, 15 equal-width bins). Lower is better. The calibration error does not measure accuracy, and on "
    "few images it is too high."
)


def render(report: RunReport) -> str:
    """The report as Markdown: equal reports give equal text."""
    data, metrics = report.dataset, report.metrics
    sections = [
        f"# {escape(report.title)}",
        *([SIMULATED] if data.simulated else []),
        *_verdict(report),
        _setup(report),
        "Not a medical device.",
        "## Results",
        NUMBERS,
        *([_escaped(ranked_cells(report.comparison))] if len(report.comparison.others) > 1 else []),
        _escaped(comparison_cells(report.rows)),
        *_spread(report),
        f"## Each class ({escape(report.method)})",
        _escaped(class_cells(metrics)),
        f"![Confusion matrix of {escape(report.method)}]({report.figure})",
        f"Test images by true class (rows) and predicted class (columns){_mean_of(report)}:",
        _escaped(_confusion_cells(metrics)),
        *_by_subgroup(report),
        "## How to read the numbers",
        _bullets(_reading(report)),
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


def escape(text: str) -> str:
    """Escape Markdown's special characters and replace line breaks by blanks, so that a name is shown literally."""
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", " ".join(text.split()))


def _verdict(report: RunReport) -> list[str]:
    """The verdict: leaks as a box, headline and score, a list with alarms in bold, and what to do next."""
    texts = {"leak": [], "headline": [], "score": [], "next": [], "list": []}  # type: dict[str, list[str]]
    for finding in report.verdict:
        text = escape(finding.text)
        texts.get(finding.kind, texts["list"]).append(
            f"**{text}**" if finding.alarm and finding.kind != "leak" else text
        )
    return [
        *(f"> {leak}" for leak in texts["leak"]),
        f"**{' '.join(texts['headline'])}** {' '.join(texts['score'])}",
        _bullets(texts["list"]),
        f"**Next:** {' '.join(texts['next'])}",
    ]


def _spread(report: RunReport) -> list[str]:
    """Mean and spread over the runs, if there are several."""
    tested = report.comparison
    if not tested.by_run:
        return []
    if tested.predictions.folds:
        over = f"each with its own division into {tested.predictions.folds} folds"
    else:
        over = f"each with its own draw of images; the model of seed {report.seed} was saved"
    return [f"Mean ± standard deviation over {tested.runs}, {over}:", _escaped(spread_cells(tested.by_run))]


def _mean_of(report: RunReport) -> str:
    return f", mean of {report.comparison.runs}" if report.metrics.n_runs > 1 else ""


def _setup(report: RunReport) -> str:
    """What was trained and tested."""
    data = report.dataset
    c, learned = len(data.class_names), "needed no training images"
    shown = " ".join(w for w in (data.organ, data.modality) if w)
    images = f"{escape(shown)} images ({escape(data.name)})" if shown else f"images of {escape(data.name)}"
    if report.shots == "all":
        learned = "was trained on all training images"
    elif isinstance(report.shots, int):
        learned = f"was trained on {count(report.shots, 'image')} per class ({report.shots * c} in total)"
    backbone = f"on the frozen backbone {escape(report.backbone)}"
    if report.trained_on is None:
        return f"{escape(report.method)} {learned}, {backbone}, to tell {c} classes of {images} apart."
    source = "" if report.shots is None else f" of {escape(report.trained_on)}"
    which = "" if report.split == "all" else f"{report.split} "
    trained = f"{escape(report.method)} {learned}{source}, {backbone}, to tell {c} classes apart."
    return f"{trained} It is tested here on {which}{images}."


def _reading(report: RunReport) -> Iterator[str]:
    metrics = report.metrics
    if metrics.n_groups is None:
        unit = "test images; if several show one patient, the true uncertainty is larger"
    else:
        unit = f"{metrics.n_groups} groups (such as patients) that the test images come from"
    if metrics.n_groups != 1:
        yield f"The intervals come from {metrics.n_bootstrap} resamples of the {unit}."
    yield "“Beyond chance” means that the 95 % interval of the paired difference excludes zero, on ten or more images or groups."
    if report.shots is not None:
        yield f"The intervals cover the choice of test images only. Other training images give other results{_other_draws(report)}."
    if any(
        e.value == e.low == e.high == 1 for e in (metrics.macro_f1, metrics.auroc, *(c.auroc for c in metrics.classes))
    ):
        yield "An AUROC or macro-F1 of 100.0–100.0 means that these images show no error; other images may."
    if MAJORITY in report.rows:
        yield (
            f"The row “{MAJORITY}” always predicts the largest class of the test split: the best accuracy without "
            "looking at any image."
        )
    yield from ([f"{escape(report.unlike)}."] if report.unlike else [])
    yield from (escape(note) for note in report.notes)


def _other_draws(report: RunReport) -> str:
    tested = report.comparison
    if not tested.by_run:
        return f" than those of seed {report.seed} here; train with several seeds to see the difference"
    return f": the numbers are the means of {tested.runs}, and the table of standard deviations shows the difference"


def _by_subgroup(report: RunReport) -> Iterator[str]:
    if (found := report.comparison.subgroups) is not None:
        yield f"## By subgroup ({escape(report.method)})"
        yield _escaped(subgroup_cells(found))
        yield _bullets(map(escape, found.notes()))


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
    counts = [[mean_count(total, metrics.n_runs) for total in row] for row in metrics.confusion]
    rows = [[name, *row] for name, row in zip(metrics.class_names, counts, strict=True)]
    return Table(["true \\ predicted", *metrics.class_names], rows)


def _escaped(table: Table) -> str:
    cells = [[escape(str(cell)) for cell in row] for row in (table.columns, *table.rows)]
    return Table(cells[0], cells[1:], table.align).markdown()


def _bullets(sentences: Iterator[str] | list[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)
