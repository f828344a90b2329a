"""``report.md``: a short summary, with the verdict first, in words and tables; ``report.html`` shows more."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from biomedcoop.report.run import RunReport
from biomedcoop.report.sentences import CONFUSION, NUMBERS, REPEAT, SIMULATED, reading, setup
from biomedcoop.report.subgroups import subgroup_cells
from biomedcoop.report.table import Table
from biomedcoop.report.tables import class_cells, comparison_cells, ranked_cells, spread_cells, tried_cells
from biomedcoop.report.trust import calibration_cells, coverage_cells


def render(report: RunReport) -> str:
    """The report as Markdown: equal reports give equal text."""
    metrics = report.metrics
    sections = [
        f"# {escape(report.title)}",
        *([f"> **Simulated images.** {SIMULATED}"] if report.dataset.simulated else []),
        *_verdict(report),
        escape(setup(report)),
        "Not a medical device.",
        "## Results",
        NUMBERS,
        *([_escaped(ranked_cells(report.comparison))] if len(report.comparison.others) > 1 else []),
        _escaped(comparison_cells(report.rows)),
        *_spread(report),
        *(["## What was tried", _escaped(tried_cells(report.tried))] if report.tried else []),
        f"## Each class ({escape(report.method)})",
        _escaped(class_cells(metrics)),
        f"![Confusion matrix of {escape(report.method)}]({CONFUSION})",
        *_trust(report),
        *_by_subgroup(report),
        "## How to read the numbers",
        _bullets(map(escape, (*reading(report), *report.dataset.notes, *report.dataset.image_notes))),
        *(["## How to repeat it", REPEAT, f"```\n{report.command}\n```"] if report.command else []),
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
    return [f"Mean ± standard deviation over {tested.runs}, {over}:", _escaped(spread_cells(tested))]


def _trust(report: RunReport) -> Iterator[str]:
    """Calibration before and after the temperature, and prediction sets."""
    if (calibration := report.comparison.calibration) is not None:
        yield f"## Calibration ({escape(report.method)})"
        yield _escaped(calibration_cells(calibration))
    if (coverage := report.comparison.coverage) is not None:
        yield f"## Prediction sets ({escape(report.method)})"
        yield _escaped(coverage_cells(coverage))


def _by_subgroup(report: RunReport) -> Iterator[str]:
    if (found := report.comparison.subgroups) is not None:
        yield f"## By subgroup ({escape(report.method)})"
        yield _escaped(subgroup_cells(found))
        yield _bullets(map(escape, found.notes()))


def _escaped(table: Table) -> str:
    cells = [[escape(str(cell)) for cell in row] for row in (table.columns, *table.rows)]
    return Table(cells[0], cells[1:], table.align, [escape(note) for note in table.notes]).markdown()


def _bullets(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)
