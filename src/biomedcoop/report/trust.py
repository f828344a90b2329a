"""Tables on calibration and prediction sets."""

from __future__ import annotations

from biomedcoop.evaluation.bootstrap import Estimate
from biomedcoop.evaluation.calibration import Calibration
from biomedcoop.evaluation.coverage import Coverage, least_coverage_of_draws
from biomedcoop.evaluation.wording import interval, number, percent
from biomedcoop.report.table import Table


def calibration_cells(found: Calibration) -> Table:
    """A row before and a row after the temperature."""
    temperature = ", ".join(f"{one:.4g}" for one in found.temperatures)
    rows = [
        ["before", "1", percent(found.error_before), _plain(found.brier_before, 3)],
        ["after", temperature, percent(found.error), _plain(found.brier, 3)],
    ]
    return Table(["", "temperature", "calibration error, %", "Brier score (0 to 2)"], rows)


def coverage_cells(found: Coverage) -> Table:
    """A row for all test images and one for each class; what the sets cost stands below."""
    images = sum(one.support for one in found.classes)
    rows = [["all", str(images), percent(found.coverage), _plain(found.size, 2)]]
    rows += [[one.name, str(one.support), percent(one.coverage), _plain(one.size, 2)] for one in found.classes]
    right = "" if found.right.value is None else f", of which {percent(found.right)} are right"
    notes = [
        f"Promised: a coverage of {100 * (1 - found.alpha):.10g} %, in the mean over draws of calibration images, for new images "
        "in their class mix; with --by-class, in each class.",
        f"Sets of one class, in percent of the images: {percent(found.single)}{right}; on the others the classifier abstains. Sets "
        f"of all classes: {percent(found.whole)}.",
    ]
    if found.cost is not None and found.accuracy_of_all is not None:
        if found.calibration and (least := least_coverage_of_draws(found.calibration, found.alpha)):
            notes[0] += (
                f" A single draw of {found.calibration} calibration images (with --by-class, of the class with the fewest) can "
                f"give less: in 95 of 100 draws, at least {number(least)} %."
            )
        notes.append(
            f"Cost of the calibration images: trained on them too, the method has an accuracy of {percent(found.accuracy_of_all)}; "
            f"without them, the difference is {percent(found.cost, signed=True)} points."
        )
    return Table(["class", "test images", "coverage, %", "classes in a set"], rows, notes=notes)


def _plain(estimate: Estimate, digits: int) -> str:
    """An estimate that is no share, as text."""
    if estimate.value is None:
        return "–"
    ends = f" ({estimate.low:.{digits}f}–{estimate.high:.{digits}f})" if interval(estimate) else ""
    return f"{estimate.value:.{digits}f}{ends}"
