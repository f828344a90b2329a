"""Tables of accuracy, their means by group, and what was aimed at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.datasets import SEEDS, complete_groups
from benchmarks.mini.accuracy import CARD, COLUMNS, EXEMPT, Row
from benchmarks.mini.probe import SHOTS
from biomedcoop.evaluation.bootstrap import Estimate
from biomedcoop.evaluation.intervals import mean_of
from biomedcoop.evaluation.wording import percent
from biomedcoop.report.table import Table


def percents(estimates: Mapping[str, Estimate], columns: Mapping[str, str]) -> list[str]:
    """A cell for each column; differences, whose keys begin with "gain", are signed."""
    return [percent(estimates.get(key), key.startswith("gain")) for key in columns]


def accuracy_table(rows: Sequence[Row]) -> Table:
    cells = [[row.group, row.dataset, row.images, row.groups, *percents(row.estimates, COLUMNS)] for row in rows]
    columns = ["group", "dataset", "images", "groups", *COLUMNS.values()]
    return Table(columns, cells, "ll" + "r" * (len(columns) - 2))


def draws_table(rows: Sequence[Row]) -> Table:
    """Percent right of every draw of the few-shot probes."""
    head = [f"{what} {SHOTS}, draw {seed}" for what in ("probe", "raw") for seed in SEEDS]
    cells = [
        [row.dataset, *(f"{100 * value:.1f}" for what in ("features", "raw pixels") for value in row.draws[what])]
        for row in rows
    ]
    return Table(["dataset", *head], cells)


def group_means(rows: Sequence[Row], columns: Mapping[str, str] = COLUMNS) -> dict[str, dict[str, Estimate]]:
    """Mean over the datasets of each complete group that have the column; intervals from resampling the images of each."""
    means: dict[str, dict[str, Estimate]] = {}
    for group in complete_groups(row.dataset for row in rows):
        for key in columns:
            having = [row for row in rows if row.group == group and key in row.estimates]
            if having:
                values = [row.estimates[key].value or 0.0 for row in having]
                means.setdefault(group, {})[key] = mean_of(values, [row.samples[key] for row in having])
    return means


def group_table(rows: Sequence[Row], means: dict[str, dict[str, Estimate]]) -> Table:
    cells = [
        [group, sum(row.group == group for row in rows), *percents(columns, COLUMNS)]
        for group, columns in means.items()
    ]
    return Table(["group", "datasets", *COLUMNS.values()], cells)


def table_with_means(rows: Sequence[Row], columns: Mapping[str, str], notes: Sequence[str] = ()) -> Table:
    """A row a dataset; below those of a complete group, their mean."""
    means, cells = group_means(rows, columns), []
    for group in dict.fromkeys(row.group for row in rows):
        cells += [[group, row.dataset, *percents(row.estimates, columns)] for row in rows if row.group == group]
        if group in means:
            cells.append([group, "**mean**", *percents(means[group], columns)])
    return Table(["group", "dataset", *columns.values()], cells, "ll" + "r" * len(columns), notes)


def aims(rows: Sequence[Row], means: dict[str, dict[str, Estimate]], split: str) -> list[dict[str, Any]]:
    """What a mini should reach: a dict of dataset or group, aim, ours, bars, met and sure.

    Met is by the values alone; sure says whether the paired interval of ours minus the measured bar lies above 0. The card's
    figures are of the test images, so they are no bar for another split.
    """
    found: list[dict[str, Any]] = []

    def value(estimates: dict[str, Estimate], key: str) -> float:
        number = estimates[key].value
        assert number is not None
        return 100 * number

    def add(
        what: str, aim: str, estimates: dict[str, Estimate], ours: str, bars: dict[str, float], gain: str, exempt: bool
    ) -> None:
        number, low = value(estimates, ours), estimates[gain].low
        met = None if exempt else all(number > bar for bar in bars.values())
        sure = None if exempt else low is not None and low > 0
        found.append({"what": what, "aim": aim, "ours": number, "bars": bars, "met": met, "sure": sure})

    for row in rows:
        exempt = row.dataset in EXEMPT or row.group != "seen"
        for i, kind in enumerate(("16", "all")):
            bars = {"raw": value(row.estimates, f"raw_{kind}")}
            if split == "test":
                bars["card"] = CARD[row.dataset][i]
            add(row.dataset, f"probe {kind} > raw", row.estimates, f"probe_{kind}", bars, f"gain_{kind}", exempt)
        bars = {"largest": value(row.estimates, "largest")}
        add(row.dataset, "class names > largest class", row.estimates, "class_names", bars, "gain_names", exempt)
    if "unseen" in means:
        for i, kind in enumerate(("16", "all")):
            bars = {"raw": value(means["unseen"], f"raw_{kind}")}
            if split == "test":
                bars["card"] = float(np.mean([CARD[row.dataset][i] for row in rows if row.group == "unseen"]))
            aim = f"mean probe {kind} > mean raw"
            add("unseen, mean", aim, means["unseen"], f"probe_{kind}", bars, f"gain_{kind}", False)
    return found


def aims_table(found: Sequence[dict[str, Any]]) -> Table:
    """One line per dataset; the means of the unseen datasets at the end, where all of them are there."""
    head = ["probe, 16", "raw, 16", "card, 16", "aim", "probe, all", "raw, all", "card, all", "aim"]
    head += ["class names", "largest class", "aim"]
    rows = []
    for what in dict.fromkeys(aim["what"] for aim in found):
        cells = [what]
        for aim in (a for a in found if a["what"] == what):
            mark = {None: "", True: "✓" if aim["sure"] else "✓ (±)", False: "✗"}[aim["met"]]
            bars = aim["bars"]
            names = ("largest",) if "largest" in bars else ("raw", "card")
            cells += [f"{aim['ours']:.1f}", *(f"{bars[n]:.1f}" if n in bars else "–" for n in names), mark]
        rows.append(cells + [""] * (len(head) + 1 - len(cells)))
    notes = [
        "✓: ours is above every bar, by the values; ✗: it is not. (±): the paired 95 % interval of ours minus the measured "
        "raw pixels or largest class does not lie above 0 (the card's figures have no pairs).",
    ]
    if counted := [aim["met"] for aim in found if aim["met"] is not None]:
        sure = sum(bool(aim["met"] and aim["sure"]) for aim in found)
        notes.append(f"Aims met: {sum(counted)} of {len(counted)}, {sure} of them without (±).")
    return Table(["dataset", *head], rows, "l" + "rrrc" * 2 + "rrc", notes)
