"""The page as text: the values that the templates show, and the templates' environment."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from biomedcoop.errors import UserError
from biomedcoop.evaluation.comparison import MAJORITY, Predictions
from biomedcoop.evaluation.curves import OperatingPoint, sensitivities_at
from biomedcoop.evaluation.doubtful_labels import FEW_RIGHT, RULE, UNLIKELY, DoubtfulLabel, doubtful_labels
from biomedcoop.evaluation.learning_curve import LearningCurve
from biomedcoop.evaluation.metrics import TITLES
from biomedcoop.evaluation.wording import count, number, percent
from biomedcoop.progress import Progress
from biomedcoop.report.curves import TOGETHER, draw_learning_curve, drawings
from biomedcoop.report.figures import drawn
from biomedcoop.report.html.gallery import confident_errors, examples
from biomedcoop.report.html.learning import find_curve
from biomedcoop.report.html.names import shown_names
from biomedcoop.report.html.pictures import svg
from biomedcoop.report.html.sources import Sources
from biomedcoop.report.html.text import finished, isolated
from biomedcoop.report.run import RunReport
from biomedcoop.report.sentences import NUMBERS, REPEAT, SIMULATED, reading, settings_rows, setup
from biomedcoop.report.subgroups import subgroup_cells
from biomedcoop.report.table import Table
from biomedcoop.report.tables import class_cells, comparison_cells, ranked_cells, spread_cells, tried_cells
from biomedcoop.report.trust import calibration_cells, coverage_cells

MAP_WORDS = (
    "the same image with a map (Grad-CAM) of where the score of the answer comes from. "
    "A map does not say that the answer is right."
)

ALONE = (
    "Maps, sentences and similar training images are left out: classifiers of the cross-validation gave the answers, and the saved "
    "one may have learned from these images."
)

MOST_DOUBTFUL = 20
"""Labels that a page lists."""

MOSTLY_RIGHT = 0.8
"""Accuracy below which the page says that most labels that look wrong are errors of the classifier."""


def render(
    report: RunReport,
    sources: Sources,
    folder: Path,
    *,
    specificity: float,
    images: bool,
    progress: Progress | None = None,
) -> str:
    """The page as HTML: equal reports and sources give equal text.

    Args:
        report: the report.
        sources: what the page shows beside it.
        folder: folder of the run or the evaluation.
        specificity: specificity at which the sensitivity of each class is stated.
        images: False leaves out all images, maps and names of images.
        progress: called with the state of the work.
    """
    comparison, data = report.comparison, report.dataset
    p = replace(comparison.predictions, keys=shown_names(comparison.predictions.keys))
    points = sensitivities_at(specificity, p.runs(p.method), p.labels, p.class_names, groups=p.groups, folds=p.folds)
    curve, no_curve = find_curve(report, sources, folder, progress)
    errors = confident_errors(p, sources, images=images)
    doubtful = doubtful_labels(p)
    missing = list(sources.missing)
    if errors and not report.text_tower:
        missing.append(f"No sentences stand beside the errors: the backbone {report.backbone} has no text tower.")
    if not images and sources.visible is not None:
        missing.append("Images, maps and names of images are left out on request (--no-images).")
    return (
        _environment()
        .get_template("page.html")
        .render(
            report=report,
            title=report.title,
            isolated=isolated([data.name, report.method, *p.class_names, *p.keys]),
            simulated=SIMULATED if data.simulated else "",
            verdict=_by_kind(report),
            more_images=_more_images(report, curve),
            doubt=_doubt(report, len(doubtful)),
            judges_labels=comparison.relation(MAJORITY) == "better",
            setup=setup(report),
            counts=_counts(report),
            examples=examples(sources) if images else {},
            cautions=[*report.leaks, *data.notes, *data.image_notes],
            numbers=NUMBERS,
            tables=_result_tables(report),
            figures=_figures(report, points, curve),
            many=len(p.class_names) > TOGETHER,
            points=_point_table(points),
            specificity=f"{100 * specificity:g}",
            curve=curve,
            gains=None if curve is None else _gain_table(curve),
            gains_caption="" if curve is None else _gain_caption(report, curve),
            no_curve=no_curve,
            errors=errors,
            map_words=MAP_WORDS,
            of_errors=_of_errors(p),
            alone="" if p.folds is None else ALONE,
            means=f" (means over {comparison.runs})" if report.metrics.n_runs > 1 else "",
            doubtful=_doubtful_table(p, doubtful, images=images) if doubtful else None,
            rule=RULE.format(limit=f"{100 * UNLIKELY:g} %", few=FEW_RIGHT),
            words=_words(sources, missing),
            repeat=REPEAT,
            reading=list(reading(report)),
            settings=Table(["setting", "value"], settings_rows(report), "ll"),
            request=json.dumps(sources.public_request, indent=1, ensure_ascii=False) if sources.request else "",
            versions=Table(["software", "version"], list(report.versions.items()), "ll"),
            hashes=Table(["file", "SHA-256"], list(sources.hashes.items()), "ll"),
            missing=missing,
        )
    )


def _by_kind(report: RunReport) -> dict[str, list[Any]]:
    """The findings of the verdict: leaks, headline, score, next, and the list of all others."""
    found: dict[str, list[Any]] = {"leak": [], "headline": [], "score": [], "next": [], "list": []}
    for finding in report.verdict:
        found.get(finding.kind, found["list"]).append(finding)
    return found


def _more_images(report: RunReport, curve: LearningCurve | None) -> str:
    """What more images would bring, and of which class first."""
    if curve is None:
        return ""
    tested = [c for c in report.metrics.classes if c.support]
    weakest = min(tested, key=lambda c: c.sensitivity.value or 0.0)
    found = number(weakest.sensitivity.value or 0.0)
    return f"{curve.sentence()} The class that is found least is “{weakest.name}” ({found} %)."


def _doubt(report: RunReport, n: int) -> str:
    """How many labels look wrong."""
    if not n:
        return ""
    has = (
        "image has a label that looks wrong: check it" if n == 1 else "images have a label that looks wrong: check them"
    )
    text, right = f"{n} test {has} first.", report.metrics.accuracy.value or 0.0
    if right >= MOSTLY_RIGHT:
        return text
    own = "it may be its own error" if n == 1 else "most of them are its own errors"
    return f"{text} The classifier is right for {number(right)} % only, so {own}."


def _of_errors(p: Predictions) -> str:
    """The number of errors in the first run, whose answers the page shows; which run that is, if there are several."""
    runs = p.runs(p.method)
    errors = count(int((runs[0].argmax(axis=1) != p.labels).sum()), "error")
    if len(runs) == 1:
        return errors
    if p.folds is not None:
        return f"{errors} of the first cross-validation"
    return f"{errors} of {f'seed {p.seeds[0]}' if p.seeds else 'the first seed'}, whose classifier is saved"


def _counts(report: RunReport) -> Table:
    counts = report.dataset.counts
    rows = [[name, *(str(counts[s][k]) for s in counts)] for k, name in enumerate(report.dataset.class_names)]
    return Table(["class", *counts], [*rows, ["all", *(str(sum(counts[s])) for s in counts)]])


def _result_tables(report: RunReport) -> dict[str, Table]:
    comparison = report.comparison
    found = {"methods": comparison_cells(report.rows), "classes": class_cells(report.metrics)}
    if len(comparison.others) > 1:
        found["ranked"] = ranked_cells(comparison)
    if report.tried:
        found["tried"] = tried_cells(report.tried)
    if comparison.by_run:
        found["spread"] = spread_cells(comparison)
    if comparison.calibration is not None:
        found["calibration"] = calibration_cells(comparison.calibration)
    if comparison.coverage is not None:
        found["sets"] = coverage_cells(comparison.coverage)
    if comparison.subgroups is not None:
        cells = subgroup_cells(comparison.subgroups)
        found["subgroups"] = Table(cells.columns, cells.rows, cells.align, list(comparison.subgroups.notes()))
    return found


def _figures(report: RunReport, points: list[OperatingPoint], curve: LearningCurve | None) -> dict[str, Markup]:
    comparison, metrics = report.comparison, report.metrics
    values = ", ".join(f"{row} {percent(comparison.value(row))}" for row in comparison.rows)
    areas = ", ".join(f"{c.name} {percent(c.auroc)}" for c in metrics.classes)
    shares = "; ".join(f"{c.name} {percent(c.sensitivity)}" for c in metrics.classes)
    words = {
        "intervals": f"{TITLES[comparison.measure]} in percent: {values}.",
        "confusion": f"Confusion matrix; found in percent: {shares}.",
        "reliability": f"Reliability diagram; calibration error in percent: {percent(metrics.calibration_error)}.",
        "reliability-before": "Reliability diagram before the temperature.",
        "roc": f"ROC curves; area in percent: {areas}.",
        "precision-recall": "Precision-recall curves, one class against the rest.",
    }
    known = drawings(comparison, points)
    if curve is not None:
        known["learning-curve"] = partial(draw_learning_curve, curve=curve), (5.4, 3.6)
        words["learning-curve"] = f"Learning curve. {curve.sentence()}"
    return {name: svg(partial(drawn, *known[name]), name, words[name]) for name in known}


def _point_table(points: list[OperatingPoint]) -> Table:
    rows = [
        [point.name, percent(point.sensitivity), number(point.specificity), f"{point.threshold:.3f}", str(point.others)]
        for point in points
        if point.sensitivity.value is not None and point.others
    ]
    return Table(["class", "sensitivity", "specificity reached", "threshold", "images of other classes"], rows)


def _doubtful_table(p: Predictions, found: list[DoubtfulLabel], *, images: bool) -> Table:
    named = ["image"] if images else []
    rows = [
        [
            str(one.image + 1),
            *([p.keys[one.image]] if images else []),
            *(
                p.class_names[one.label],
                f"{number(one.p_label)} %",
                p.class_names[one.answer],
                f"{number(one.p_answer)} %",
            ),
        ]
        for one in found[:MOST_DOUBTFUL]
    ]
    columns = ["row of predictions.csv", *named, "label", "its probability", "answer", "its probability"]
    rest = len(found) - MOST_DOUBTFUL
    return Table(columns, rows, "r" + "l" * len(named) + "lrlr", [f"And {rest} more."] if rest > 0 else [])


def _gain_table(curve: LearningCurve) -> Table:
    columns = ["", *(f"{shots:g} per class" for shots in curve.shots), f"{curve.more} more would change (points)"]
    rows = []
    for name in (None, *curve.class_names):
        means, gain = [number(float(values.mean())) for values in curve.values(name)], curve.gain(curve.more, name)
        certain = gain.low is not None and gain.high is not None and not gain.low <= 0 <= gain.high
        rows.append([name or "balanced accuracy", *means, percent(gain, signed=True) if certain else "–"])
    return Table(columns, rows, notes=["–: too uncertain to tell."] if any(row[-1] == "–" for row in rows) else [])


def _gain_caption(report: RunReport, curve: LearningCurve) -> str:
    """What the table of a learning curve shows, and whether its last column is the run itself."""
    seeds = report.comparison.predictions.seeds
    run = f"the run itself{f' (seed {seeds[0]})' if len(seeds) > 1 else ''}"
    if curve.ends_at_run:
        return f"Percent, and what more images would change. {curve.shots[-1]:g} per class: {run}."
    return (
        "Percent, and what more images would change. All columns are other trainings than the run, with recipe "
        f"“{curve.recipe}”: {curve.shots[-1]:g} per class is not the result of this report."
    )


def _words(sources: Sources, missing: list[str]) -> dict[str, Any] | None:
    """The tables, notes and figure on the learned text; or None, and why there are none if there could be."""
    if sources.classifier is None:
        return None
    from biomedcoop.explain.words import words

    try:
        found = words(sources.classifier)
    except UserError:  # its message may name a folder of this machine
        missing.append("There is no section on words: 'biomedcoop words' says why.")
        return None
    tables = [
        (one.title, Table(one.columns, one.rows, "l" * (len(one.columns) - one.right) + "r" * one.right, one.notes))
        for one in found.tables()
    ]
    about = "Cosines of the class embeddings before and after the training."
    figure = None if found.after is None else svg(found.figure, "words", about)
    return {"tables": tables, "notes": found.notes, "figure": figure}


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("biomedcoop.report.html"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finished,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates = files("biomedcoop.report.html") / "templates"
    style, script = ((templates / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals.update(style=Markup(style), script=Markup(script), script_hash=allowed)
    environment.filters["percent"] = lambda share: f"{100 * share:.0f} %"
    return environment
