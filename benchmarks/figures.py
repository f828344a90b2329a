"""Figures of the results pages, drawn from the tables of their data files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from biomedcoop.report.figures import write_figure
from biomedcoop.report.table import Table

BLUE, GREY = "#0072B2", "0.45"
NUMBER = re.compile(r"[+-]?\d+\.\d+")
SUFFIX = ", differences"


def numbers(cell: object) -> list[float]:
    """The numbers of a cell such as ``+2.0 (+0.2 to +3.6)``."""
    return [float(text) for text in NUMBER.findall(str(cell).replace("−", "-"))]


def difference_figure(tables: Mapping[str, Table], path: Path) -> None:
    """Every paired difference with its 95 % interval over images, a panel a group; filled where the interval leaves out 0.

    Args:
        tables: those of a page; drawn are the ones whose name ends in ", differences".
    """
    chosen = {name.removesuffix(SUFFIX): table for name, table in tables.items() if name.endswith(SUFFIX)}
    columns = [k for k, name in enumerate(next(iter(chosen.values())).columns) if name.endswith("(over images)")]
    head = [next(iter(chosen.values())).columns[k].split(":")[0] for k in columns]
    rows = [(name, row) for name, table in chosen.items() for row in table.rows]

    def panels(figure: Any) -> None:
        axes = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
        for axis, column, group in zip(axes, columns, head, strict=True):
            for place, (_, row) in enumerate(rows):
                value, low, high = numbers(row[column])
                sure = low > 0 or high < 0
                axis.plot([low, high], [place, place], color=BLUE, lw=1.4)
                axis.plot(value, place, "o", color=BLUE, markersize=5, markerfacecolor=BLUE if sure else "white")
            axis.axvline(0, color=GREY, lw=0.8)
            axis.set_title(f"{group} datasets")
            axis.set_xlabel("points")
            axis.grid(axis="x", alpha=0.3)
            starts = [i for i in range(1, len(rows)) if rows[i][0] != rows[i - 1][0]]
            for start in starts:
                axis.axhline(start - 0.5, color="0.85", lw=0.8)
        axes[0].set_yticks(range(len(rows)), [f"{name}:  {row[0]}" for name, row in rows], fontsize=8)
        axes[0].set_ylim(len(rows) - 0.5, -0.5)

    write_figure(panels, (9.0, 0.23 * len(rows) + 1.0), path)


def accuracy_figure(tables: Mapping[str, Table], path: Path) -> None:
    """Mean accuracy of each method on each dataset, from the table "accuracy" of the first results."""
    table = tables["accuracy"]
    dataset, method, mean = (list(table.columns).index(name) for name in ("dataset", "method", "mean"))
    found: dict[str, dict[str, float]] = {}
    for row in table.rows:
        found.setdefault(str(row[method]), {})[f"{row[dataset]} ({row[0]})"] = numbers(row[mean])[0]
    datasets = list(next(iter(found.values())))

    def panel(figure: Any) -> None:
        axis = figure.add_subplot()
        marks = zip(found.items(), "os^x", (BLUE, "#D55E00", "#009E73", GREY), strict=True)
        for (name, values), mark, colour in marks:
            places = range(len(datasets))
            axis.plot([values[d] for d in datasets], places, mark, color=colour, label=name, markersize=7, ls="")
        axis.set_yticks(range(len(datasets)), datasets)
        axis.set_ylim(len(datasets) - 0.5, -0.5)
        axis.set_xlabel("accuracy, %, mean of the seeds")
        axis.grid(alpha=0.3)
        axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)

    write_figure(panel, (7.5, 2.8), path)


def int8_figure(tables: Mapping[str, Table], path: Path) -> None:
    """Accuracy of each dataset with float32 and with int8 weights, from the table "accuracy"."""
    rows = [row for row in tables["accuracy"].rows if not str(row[0]).startswith("mean")]

    def panel(figure: Any) -> None:
        axis = figure.add_subplot()
        for column, name, mark, colour in ((2, "float32", "o", BLUE), (3, "int8", "x", "#D55E00")):
            values = [numbers(row[column])[0] for row in rows]
            axis.plot(values, range(len(rows)), mark, color=colour, label=name, markersize=7, ls="")
        axis.set_yticks(range(len(rows)), [str(row[0]) for row in rows])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_xlabel("accuracy, %")
        axis.grid(alpha=0.3)
        axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)

    write_figure(panel, (7.5, 3.0), path)


def unlike_figure(tables: Mapping[str, Table], path: Path) -> None:
    """Share of images flagged as unlike 16 training images per class of each dataset, from the table "test"."""
    table = tables["test"]
    datasets = [str(row[0]) for row in table.rows]
    kinds = {
        "false alarms, 16": "own",
        "detected, 16": "other modality or organ",
        "detected, chest, 16": "other chest X-rays",
    }

    def panel(figure: Any) -> None:
        axis = figure.add_subplot()
        for (column, label), mark, colour in zip(kinds.items(), "osx", (BLUE, "#D55E00", "#009E73"), strict=True):
            shares = [(numbers(row[list(table.columns).index(column)]), place) for place, row in enumerate(table.rows)]
            found = [(values[0], place) for values, place in shares if values]
            axis.plot(*zip(*found, strict=True), mark, color=colour, label=label, markersize=7, ls="")
        axis.set_yticks(range(len(datasets)), datasets)
        axis.set_ylim(len(datasets) - 0.5, -0.5)
        axis.set_xlabel("flagged images, %")
        axis.set_ylabel("training images of")
        axis.grid(alpha=0.3)
        axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, title="images of")

    write_figure(panel, (7.5, 4.0), path)


def lesion_figure(tables: Mapping[str, Table], path: Path) -> None:
    """Pointing game and energy of each map by dataset and method, from the table "lesions"."""
    table = tables["lesions"]
    places = list(dict.fromkeys((str(row[0]), str(row[1])) for row in table.rows))
    maps = list(dict.fromkeys(str(row[2]) for row in table.rows))

    def panels(figure: Any) -> None:
        axes = figure.subplots(1, 2, sharey=True)
        for axis, column in zip(axes, ("pointing", "energy"), strict=True):
            where = list(table.columns).index(column)
            for map, mark, colour in zip(maps, "osDx", (BLUE, "#D55E00", "#009E73", GREY), strict=False):
                rows = [row for row in table.rows if row[2] == map]
                found = [(numbers(row[where])[0], places.index((str(row[0]), str(row[1])))) for row in rows]
                axis.plot(*zip(*found, strict=True), mark, color=colour, label=map, markersize=6, ls="")
            axis.set_xlabel(column)
            axis.set_xlim(left=0)
            axis.grid(alpha=0.3)
        axes[0].set_yticks(range(len(places)), [f"{dataset}, {method}" for dataset, method in places])
        axes[0].set_ylim(len(places) - 0.5, -0.5)
        axes[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)

    write_figure(panels, (8.5, 0.35 * len(places) + 1.0), path)


def dots_figure(table: Table, labels: int, columns: Mapping[str, str], axis_label: str, path: Path) -> None:
    """The last number of some columns, a mark each, for every row of a table.

    Args:
        labels: number of first columns that name a row.
        columns: names of the columns and of their marks.
    """
    names = [", ".join(str(cell).strip("`") for cell in row[:labels]) for row in table.rows]

    def panel(figure: Any) -> None:
        axis = figure.add_subplot()
        marks = zip(columns.items(), "osDx", (BLUE, "#D55E00", "#009E73", GREY), strict=False)
        for (column, label), mark, colour in marks:
            where = list(table.columns).index(column)
            values = [numbers(row[where])[-1] for row in table.rows]
            axis.plot(values, range(len(names)), mark, color=colour, label=label, markersize=6, ls="")
        axis.axvline(0, color=GREY, lw=0.8)
        axis.set_yticks(range(len(names)), names)
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.set_xlabel(axis_label)
        axis.grid(alpha=0.3)
        axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)

    write_figure(panel, (8.0, 0.3 * len(names) + 1.0), path)


def suggest_figure(tables: Mapping[str, Table], path: Path) -> None:
    """Points of each rule above a random choice, on validation images."""
    groups = {f"{group}, accuracy": f"{group} datasets" for group in ("seen", "unseen")}
    dots_figure(tables["suggest rules"], 2, groups, "accuracy above a random choice, points", path)


def calibration_figure(tables: Mapping[str, Table], path: Path) -> None:
    """Expected calibration error of each method and its losses."""
    groups = {name: name.replace(", ECE", " datasets") for name in tables["losses"].columns if name.endswith(", ECE")}
    dots_figure(tables["losses"], 2, groups, "expected calibration error, %", path)


def coverage_figure(tables: Mapping[str, Table], path: Path) -> None:
    """Coverage by number of calibration images: theory, each score, and the clipped rank."""
    table = tables["scores"]
    column = {name: list(table.columns).index(name) for name in ("theory, %", "coverage, %", "clipped, %")}

    def panel(figure: Any) -> None:
        axes = figure.subplots()
        for marker, score in zip("os^", dict.fromkeys(row[0] for row in table.rows), strict=True):
            rows = [row for row in table.rows if row[0] == score]
            places = range(len(rows))
            axes.plot(
                places, [float(row[column["coverage, %"]]) for row in rows], marker, color=BLUE, alpha=0.6, label=score
            )
        axes.plot(
            places, [float(row[column["theory, %"]]) for row in rows], "_", color="black", markersize=22, label="theory"
        )
        axes.plot(places, [float(row[column["clipped, %"]]) for row in rows], "x", color=GREY, label="clipped")
        axes.axhline(90, color=GREY, lw=0.8, ls=":")
        axes.set_xticks(places, [str(row[1]) for row in rows])
        axes.set(xlabel="calibration images", ylabel="coverage, %")
        axes.legend(frameon=False, fontsize=8)

    write_figure(panel, (5.2, 3.2), path)


def fine_tune_figure(tables: Mapping[str, Table], path: Path) -> None:
    """Accuracy of each method on each dataset and number of images per class, from the table "accuracy"."""
    table = tables["accuracy"]
    places = [f"{dataset} ({group}), {shots}" for group, dataset, shots, *_ in table.rows]

    def panel(figure: Any) -> None:
        axis = figure.add_subplot()
        colours = (BLUE, "#D55E00", "#009E73", GREY, "#CC79A7", "#E69F00")
        for column, mark, colour in zip(range(3, len(table.columns)), "os^xDv", colours, strict=False):
            found = [(numbers(row[column])[0], place) for place, row in enumerate(table.rows) if numbers(row[column])]
            label = str(table.columns[column])
            axis.plot(
                [x for x, _ in found], [y for _, y in found], mark, color=colour, label=label, markersize=7, ls=""
            )
        axis.set_yticks(range(len(places)), places)
        axis.set_ylim(len(places) - 0.5, -0.5)
        axis.set_xlabel("accuracy, %")
        axis.grid(alpha=0.3)
        axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)

    write_figure(panel, (8.0, 2.6), path)


def auto_figure(tables: Mapping[str, Table], path: Path) -> None:
    """Accuracy of auto and of single methods by images per class, a panel for each group, from the table "test"."""
    table = tables["test"]
    shown = {"auto": "o-", "krr": "s--", "linear-probe": "^--", "lp++ with validation images": "D:", "zero-shot": "x:"}

    def panels(figure: Any) -> None:
        axes = figure.subplots(1, 2)
        for axis, group in zip(axes, ("seen", "unseen"), strict=True):
            places = {c.split(", ")[1]: i for i, c in enumerate(table.columns) if c.startswith(f"{group}, ")}
            places.pop("mean")
            for row in (row for row in table.rows if row[0] in shown):
                values = [numbers(row[i])[0] for i in places.values()]
                axis.plot(list(places), values, shown[str(row[0])], label=str(row[0]), markersize=5)
            axis.set_title(group)
            axis.set_xlabel("images per class")
            axis.grid(alpha=0.3)
        axes[0].set_ylabel("accuracy, %")
        axes[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)

    write_figure(panels, (9.0, 3.2), path)


def estimate_figure(tables: Mapping[str, Table], path: Path) -> None:
    """The mean estimate with the half-width of its interval, and the two splits, from the table "estimate"."""
    rows = tables["estimate"].rows

    def panel(figure: Any) -> None:
        axis = figure.add_subplot()
        places = list(range(len(rows)))
        estimates, halves, validation, tests = ([numbers(row[i])[0] for row in rows] for i in (2, 3, 4, 5))
        axis.errorbar(estimates, places, xerr=halves, fmt="o", color=BLUE, capsize=3, label="estimate, mean interval")
        axis.plot(validation, places, "+", color="#009E73", markersize=9, ls="", label="validation split")
        axis.plot(tests, places, "x", color="#D55E00", markersize=8, ls="", label="test split")
        axis.set_yticks(places, [f"{row[0]}, {row[1]} images per class" for row in rows])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_xlabel("accuracy, %")
        axis.grid(alpha=0.3)
        axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)

    write_figure(panel, (8.0, 2.4), path)


def values_figure(tables: Mapping[str, Table], path: Path) -> None:
    """Accuracy by the value of α: a row of panels for each group, a panel for each method, a line for each number of images."""

    def panels(figure: Any) -> None:
        grid = figure.subplots(2, len(tables), sharex="col")
        for axes, group in zip(grid, ("seen", "unseen"), strict=True):
            for axis, (name, table) in zip(axes, tables.items(), strict=True):
                fixed = table.rows[1:]
                for shots, marker in zip(("1", "2", "4", "8", "16"), "osD^v", strict=True):
                    place = list(table.columns).index(f"{group}, {shots}")
                    axis.plot(
                        range(len(fixed)), [numbers(row[place])[0] for row in fixed], f"{marker}-", ms=4, label=shots
                    )
                axis.set_xticks(range(len(fixed)), [str(row[0]) for row in fixed], rotation=60)
                axis.set_title(f"{name}, {group}")
                axis.grid(alpha=0.3)
            axes[0].set_ylabel("accuracy, %")
        for axis in grid[1]:
            axis.set_xlabel("α")
        axis.legend(title="images per class", loc="center left", bbox_to_anchor=(1.02, 1.0), frameon=False)

    write_figure(panels, (10.0, 5.0), path)


FIGURES = {
    "auto": auto_figure,
    "calibration": calibration_figure,
    "choice": difference_figure,
    "coverage": coverage_figure,
    "estimate": estimate_figure,
    "fast": difference_figure,
    "fine-tune": fine_tune_figure,
    "first": accuracy_figure,
    "int8": int8_figure,
    "prompts": difference_figure,
    "recipes": difference_figure,
    "saliency": lesion_figure,
    "suggest": suggest_figure,
    "unlike": unlike_figure,
    "values": values_figure,
    "views": difference_figure,
}
"""What draws ``PAGE.png``; the other pages' figures are drawn by their own commands."""
