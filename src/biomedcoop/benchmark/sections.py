"""The parts of a benchmark's report: headings, tables and figures, in the order to read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import TypeVar

from biomedcoop.benchmark.differences import Resampled, compare
from biomedcoop.benchmark.figures.bars import backbone_figure, variant_figure
from biomedcoop.benchmark.figures.curves import points, shots_figure, sweep_figure
from biomedcoop.benchmark.figures.ranks import rank_figure
from biomedcoop.benchmark.ranking import rank
from biomedcoop.benchmark.results import BenchmarkResults, TableRow
from biomedcoop.benchmark.scores import (
    Measure,
    Unit,
    cell,
    collections,
    described,
    drawable,
    images_per_class,
    measures,
    units,
)
from biomedcoop.benchmark.sweeps import sweeps
from biomedcoop.benchmark.tables.comparison import difference_matrix, difference_table, rank_table
from biomedcoop.benchmark.tables.cost import cost_table, unfinished_table
from biomedcoop.benchmark.tables.data import data_table
from biomedcoop.benchmark.tables.means import (
    METRICS,
    backbone_table,
    file_name,
    mean_tables,
    published_dataset_table,
    published_table,
    rows_of,
    unit_table,
    wide_table,
)
from biomedcoop.benchmark.tables.result_table import ResultTable

Draw = Callable[[Sequence[Path]], None]
Item = TypeVar("Item", ResultTable, "Figure")


@dataclass(frozen=True)
class Figure:
    """A figure that is drawn when the report is written.

    Attributes:
        name: name of its files without ending.
        title: what it shows.
        full: whether there is something to show.
    """

    name: str
    title: str
    draw: Draw
    full: bool = True


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        tables: tables to show and to write as CSV and LaTeX.
        files: tables that are only written.
        notes: sentences in place of figures that have nothing to show.
    """

    title: str
    tables: Sequence[ResultTable] = ()
    figures: Sequence[Figure] = ()
    files: Sequence[ResultTable] = ()
    notes: Sequence[str] = ()


def with_own_files(parts: Sequence[Section]) -> list[Section]:
    """The same parts, with a number behind the file name of a table or figure that an earlier one has.

    The datasets ``a.b`` and ``a-b`` both become ``a-b``.
    """
    tables, figures = set[str](), set[str]()

    def own(item: Item, taken: set[str]) -> Item:
        names = chain([item.name], (f"{item.name}-{number}" for number in count(2)))
        name = next(name for name in names if name not in taken)
        taken.add(name)
        return replace(item, name=name)

    return [
        replace(
            part,
            tables=[own(table, tables) for table in part.tables],
            figures=[own(figure, figures) for figure in part.figures],
            files=[own(table, tables) for table in part.files],
        )
        for part in parts
    ]


def sections(results: BenchmarkResults, resampled: Resampled) -> Iterator[Section]:
    """The parts of the report; what the protocol or the finished runs cannot give is left out."""
    several = len(results.backbones) > 1
    for backbone in results.backbones:
        named = f", {backbone}" if several else ""
        figures = _shots_figures(results, backbone)
        yield Section(f"Means{named}", mean_tables(results, backbone), *_shown(figures))
        yield from _published(results, backbone, named)
        yield from _differences(results, resampled, backbone, named)
        yield from _ranks(results, backbone, named)
        yield from _variants(results, backbone, named)
    if several:
        tables = [backbone_table(results, over, name) for name, over in collections(results).items()]
        last = headline(results)
        title = f"Methods by backbone, {described(results, last)}"
        full = bool(drawable(results, results.rows, [last]))
        figure = Figure("backbones", title, _drawn(backbone_figure, results, last), full)
        yield Section("Backbones", tables, *_shown([figure]))
    for metric in [name for name in METRICS if name != "accuracy"]:
        if any(
            values.get(metric) not in (None, values["accuracy"])
            for run in results.runs
            for values in run.tests.values()
        ):
            tables = [table for backbone in results.backbones for table in mean_tables(results, backbone, metric)]
            yield Section(METRICS[metric], tables) if metric == "balanced_accuracy" else Section("", files=tables)
    cost = cost_table(results)
    if cost is not None:
        yield Section("Cost", [cost])
    yield from _datasets(results)
    if results.tests:
        yield Section("Data", [data_table(results)])
    unfinished = unfinished_table(results)
    if unfinished is not None:
        yield Section("Failed and skipped", [unfinished])


def headline(results: BenchmarkResults) -> Measure:
    """The measure of single figures: the most images per class of which there are results, or the harmonic mean."""
    single = [measure for measure in measures(results) if not measure.of_means]
    found = {run.shots for run in results.runs if run.tests}
    return next((measure for measure in reversed(single) if measure.shots in found), single[-1])


def _shots_figures(results: BenchmarkResults, backbone: str) -> list[Figure]:
    rows = rows_of(results, backbone)
    if results.kind == "base-to-novel" or len(results.shots) < 2:
        return []
    name = file_name("shots", backbone if len(results.backbones) > 1 else "")
    full = any(points(results, row, [unit]) for row in rows for unit in units(results))
    title = f"Accuracy by {images_per_class(results)}"
    return [Figure(name, title, _drawn(shots_figure, results, rows), full)]


def _published(results: BenchmarkResults, backbone: str, named: str) -> Iterator[Section]:
    found = [make(results, backbone) for make in (published_table, published_dataset_table)]
    tables = [table for table in found if table is not None]
    if tables:
        yield Section(f"Beside the published numbers{named}", tables)


def _differences(results: BenchmarkResults, resampled: Resampled, backbone: str, named: str) -> Iterator[Section]:
    tables, files = [], []
    columns, last = [measure for measure in measures(results) if not measure.of_means], headline(results)
    reference, named_after = results.reference or "", backbone if named else ""
    for name, over in collections(results).items():
        found = compare(results, resampled, over, columns, backbone)
        of_last = [difference for difference in found if difference.measure == last]
        if found and len(columns) > 1:
            tables.append(difference_matrix(found, reference, name, named_after))
            files.append(difference_table(found, reference, name, len(over), named_after))
        if of_last:
            tables.append(difference_table(of_last, reference, name, len(over), named_after, described(results, last)))
    if tables:
        yield Section(f"Differences to {reference}{named}", tables, files=files)


def _ranks(results: BenchmarkResults, backbone: str, named: str) -> Iterator[Section]:
    tables, figures = [], []
    rows = rows_of(results, backbone)
    for name, over in collections(results).items():
        columns = [measure for measure in measures(results) if not measure.of_means]
        found = {m: ranking for m in columns if (ranking := rank(results, rows, over, m)) is not None}
        compared = {m: ranking for m, ranking in found.items() if ranking.ranks.datasets > 1}
        if not compared:
            continue
        tables.append(rank_table(compared, name, backbone if named else ""))
        last = headline(results)
        if last in compared and compared[last].ranks.critical_difference is not None:
            title = f"Average ranks over {name}{named}, {described(results, last)}, {compared[last].ranks.datasets} datasets"
            file = file_name("ranks", name, backbone if named else "")
            figures.append(Figure(file, title, _drawn(rank_figure, compared[last], title)))
    if tables:
        yield Section(f"Ranks{named}", tables, figures)


def _variants(results: BenchmarkResults, backbone: str, named: str) -> Iterator[Section]:
    figures = []
    last = headline(results)
    columns = [measure for measure in measures(results) if not measure.of_means]
    curves = [sweep for sweep in sweeps(results) if sweep.backbone == backbone]
    on_curves = {row for sweep in curves for row in sweep.points.values()}
    rows = rows_of(results, backbone)
    for method in dict.fromkeys(row.method for row in rows if row.variant is not None):
        bars = [row for row in rows if row.method == method]
        if any(row.variant is not None and row not in on_curves for row in bars):
            draw = _drawn(variant_figure, results, bars, last)
            file = file_name("variants", method, backbone if named else "")
            full = bool(drawable(results, bars, [last]))
            figures.append(Figure(file, f"Variants of {method}, {described(results, last)}", draw, full))
    for sweep in curves:
        file = file_name(sweep.setting, sweep.method, backbone if named else "")
        full = bool(drawable(results, list(sweep.points.values()), columns))
        draw = _drawn(sweep_figure, results, sweep)
        figures.append(Figure(file, f"{sweep.method} by {sweep.setting}", draw, full))
    if figures:
        yield Section(f"Variants{named}", (), *_shown(figures))


def _datasets(results: BenchmarkResults) -> Iterator[Section]:
    every = units(results)
    if len(every) < 2:
        return
    columns, last = [m for m in measures(results) if not m.of_means], headline(results)
    wide = {(b, m): wide_table(results, b, m) for b in results.backbones for m in columns}
    shown = [table for (_, measure), table in wide.items() if measure == last]
    begun = [unit for unit in every if any(_begun(results, row, unit, columns) for row in results.rows)]
    tables = [unit_table(results, backbone, unit) for backbone in results.backbones for unit in begun]
    yield Section("Every dataset", [*shown, *tables], files=[table for table in wide.values() if table not in shown])


def _begun(results: BenchmarkResults, row: TableRow, unit: Unit, columns: Sequence[Measure]) -> bool:
    scores = [cell(results, row, unit, measure) for measure in columns]
    return any(score.mean is not None or score.absent for score in scores)


def _shown(figures: Sequence[Figure]) -> tuple[list[Figure], tuple[()], list[str]]:
    """Figures that have something to show, no files, and a sentence for each of the others: the ends of a section."""
    notes = [f"No figure of '{f.title}': no mean has results of every dataset and seed." for f in figures if not f.full]
    return [figure for figure in figures if figure.full], (), notes


def _drawn(draw: Callable[..., None], *arguments: object) -> Draw:
    return lambda paths: draw(*arguments, paths)
