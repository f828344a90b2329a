"""Tables that compare methods: differences to the reference, and average ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from biomedcoop.benchmark.differences import Difference
from biomedcoop.benchmark.ranking import Ranking
from biomedcoop.benchmark.results import TableRow
from biomedcoop.benchmark.scores import Measure
from biomedcoop.benchmark.statistics import LEAST_DATASETS
from biomedcoop.benchmark.tables.means import file_name
from biomedcoop.benchmark.tables.result_table import Cell, ResultTable

UNTESTED = f"Nothing is tested across datasets: that takes at least {LEAST_DATASETS} of them."


def difference_matrix(differences: Sequence[Difference], reference: str, name: str, backbone: str = "") -> ResultTable:
    """Differences in points: a row for each method, a column for each measure, marked by the corrected p-values."""
    found = {(d.row, d.measure): d for d in differences}
    columns = list(dict.fromkeys(d.measure for d in differences))
    rows: list[list[Cell]] = [
        [row.name, *(found.get((row, measure)) for measure in columns)]
        for row in dict.fromkeys(d.row for d in differences)
    ]
    corrected = "corrected for the comparisons of the column (Holm)"
    tested = any(d.signed_rank.raw is not None for d in differences)
    across = (
        f"; †: also across datasets (signed-rank test); both {corrected}." if tested else f", {corrected}. {UNTESTED}"
    )
    notes = [f"Bold: p < 0.05 over images{across}"]
    file = file_name("difference-points", name, backbone)
    return ResultTable(file, _title(reference, name, backbone), ["method", *(m.name for m in columns)], rows, notes)


def difference_table(
    differences: Sequence[Difference], reference: str, name: str, total: int, backbone: str = "", shown: str = ""
) -> ResultTable:
    """Differences in points to the reference, with both intervals and the corrected p-values.

    Args:
        name: what is averaged.
        total: number of datasets in it.
        backbone, shown: backbone and measure, named in the title and in the file's name if there are others.
    """
    several = len({d.measure for d in differences}) > 1
    counted = not all(d.complete for d in differences)
    tested = any(d.signed_rank.raw is not None for d in differences)
    rows: list[list[Cell]] = [
        [
            d.row.name,
            *([d.measure.name] if several else []),
            *([d.datasets] if counted else []),
            *(d.over_images, d.over_datasets, d.images),
            *((d.signed_rank, d.t) if tested else ()),
        ]
        for d in differences
    ]
    heads = [
        "method",
        *(["measure"] if several else []),
        *(["datasets"] if counted else []),
        "over images",
        "over datasets",
    ]
    heads += ["p images", *(("p signed-rank", "p t") if tested else ())]
    family = max((sum(d.measure == other.measure for other in differences) for d in differences), default=0)
    notes = [f"P-values are corrected for the {family} comparisons of a column (Holm); bold below 0.05."]
    notes += [] if tested else [UNTESTED]
    what = f"{_title(reference, name, backbone)}{f', {shown}' if shown else ''}"
    return ResultTable(file_name("differences", shown, name, backbone), what, heads, rows, notes, texts=1 + several)


def _title(reference: str, name: str, backbone: str) -> str:
    return f"Difference to {reference}, points, mean of {name}{f', {backbone}' if backbone else ''}"


def rank_table(rankings: Mapping[Measure, Ranking], name: str, backbone: str = "") -> ResultTable:
    """Average rank of each method by measure, with Friedman's p-value and the critical difference in the last rows."""
    rows_of = list(dict.fromkeys(row for ranking in rankings.values() for row in ranking.rows))

    def value(ranking: Ranking, row: TableRow) -> Cell:
        return ranking.ranks.ranks[ranking.rows.index(row)] if row in ranking.rows else None

    def p_text(p: float | None) -> Cell:
        return None if p is None else f"{p:.3f}" if p >= 0.001 else "<0.001"

    every = list(rankings.values())
    rows: list[list[Cell]] = [[row.name, *(value(ranking, row) for ranking in every)] for row in rows_of]
    rows.append(["datasets", *(ranking.ranks.datasets for ranking in every)])
    tested = any(ranking.ranks.critical_difference is not None for ranking in every)
    if tested:
        rows.append(["critical difference", *(ranking.ranks.critical_difference for ranking in every)])
        rows.append(["p of Friedman", *(p_text(ranking.ranks.friedman_p) for ranking in every)])
    title = f"Average rank over {name}, 1 is best{f', {backbone}' if backbone else ''}"
    out = sorted({row.name for ranking in every for row in ranking.left_out})
    notes = [f"Left out, with results of less than half of the datasets: {', '.join(out)}."] if out else []
    notes += [] if tested else [UNTESTED]
    return ResultTable(file_name("ranks", name, backbone), title, ["method", *(m.name for m in rankings)], rows, notes)
