"""The report of a benchmark: ``report.md`` with its tables and figures, from the output folder alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from biomedcoop.benchmark.differences import N_BOOTSTRAP, Resampled
from biomedcoop.benchmark.published import differing, published
from biomedcoop.benchmark.results import NO_SHOTS, BenchmarkResults, read_results
from biomedcoop.benchmark.scores import images_per_class
from biomedcoop.benchmark.sections import Section, sections, with_own_files
from biomedcoop.benchmark.tables.data import runs_csv
from biomedcoop.drawing import letters_noted
from biomedcoop.errors import UserError
from biomedcoop.evaluation.wording import count
from biomedcoop.output import check_new_folder, new_folder

REPORT = "report.md"
CONTENTS = (REPORT, "tables", "figures")


def write_report(folder: str | Path, out: str | Path | None = None, n_bootstrap: int = N_BOOTSTRAP) -> Path:
    """Write the report of a benchmark; it needs neither images nor backbone, and the grid need not be finished.

    The folder appears whole or not at all, and replaces an earlier report. Equal results give equal bytes.

    Args:
        folder: output folder of a benchmark.
        out: folder to write; by default ``report`` in ``folder``.
        n_bootstrap: number of resamples of the test images behind intervals and p-values.

    Returns:
        The path of ``report.md``; beside it stand ``tables/`` (CSV and LaTeX) and ``figures/`` (PNG and PDF).

    Raises:
        UserError: the folder holds no results, or the report cannot be written.
    """
    results = read_results(folder)
    if not results.runs:
        raise UserError(f"{folder} holds no finished run yet; continue the benchmark first")
    target = Path(out) if out is not None else Path(folder) / "report"
    check_new_folder(target, overwrite=True, mark=REPORT, contents=CONTENTS)
    parts = with_own_files(list(sections(results, Resampled(results, n_bootstrap))))
    with letters_noted(), new_folder(target, overwrite=True, mark=REPORT, contents=CONTENTS) as new:
        for name in ("tables", "figures"):
            (new / name).mkdir()
        (new / "tables" / "runs.csv").write_text(runs_csv(results), encoding="utf-8")
        for part in parts:
            for table in (*part.tables, *part.files):
                (new / "tables" / f"{table.name}.csv").write_text(table.csv(), encoding="utf-8")
                (new / "tables" / f"{table.name}.tex").write_text(table.latex(), encoding="utf-8")
            for figure in part.figures:
                figure.draw([new / "figures" / f"{figure.name}.{ending}" for ending in ("png", "pdf")])
        (new / REPORT).write_text(_render(results, parts, n_bootstrap), encoding="utf-8")
    return target / REPORT


def _render(results: BenchmarkResults, parts: Sequence[Section], n_bootstrap: int) -> str:
    blocks = [f"# {results.protocol.get('title') or results.kind}", "\n".join(_prose(results, parts, n_bootstrap))]
    for part in parts:
        if not part.tables and not part.figures and not part.notes:
            continue
        blocks.append(f"## {part.title}")
        for table in part.tables:
            blocks += [f"### {table.title}", table.markdown()]
        blocks += part.notes
        blocks += [f"![{figure.title}](figures/{figure.name}.png)" for figure in part.figures]
    return "\n\n".join(blocks) + "\n"


def _prose(results: BenchmarkResults, parts: Sequence[Section], n_bootstrap: int) -> Iterator[str]:
    """At most ten lines: what was run, and how to read the tables."""
    protocol, tables = results.protocol, " ".join(table.name for part in parts for table in part.tables)
    recipe = protocol.get("recipe", "paper")
    yield (
        f"- Protocol {results.kind}; backbone {', '.join(results.backbones)}; recipe {recipe}; seeds "
        f"{', '.join(map(str, results.seeds))}; {images_per_class(results)} {', '.join(map(str, results.shots))}; biomedcoop "
        f"{results.plan.get('versions', {}).get('biomedcoop', 'of unknown version')}."
    )
    status = [run.status for run in results.runs]
    planned = max(planned_runs(results), len(status))
    left = planned - len(status)
    yield (
        f"- Of {planned:,} runs {status.count('done'):,} are done, {status.count('failed'):,} failed, "
        f"{status.count('skipped'):,} were skipped, {left:,} are still to do."
    )
    yield (
        "- Scores are the mean ± sample standard deviation over seeds, in percent. In each column the best is bold and the "
        "second underlined."
    )
    if left or len(set(status)) > 1:
        yield "- `*`: seeds or datasets are missing in this value, so it is not ranked."
    if results.kind == "realistic":
        yield _realistic(results)
    if results.kind == "base-to-novel":
        yield (
            "- HM: harmonic mean of base and novel by dataset, then averaged (the paper's baselines). HM of means: that of the two "
            "averages (the paper's BiomedCoOp)."
        )
    elif any(run.shots == NO_SHOTS for run in results.runs):
        yield "- A method without training images has one value, shown in every column."
    if "differences-" in tables:
        yield (
            f"- Differences are paired. Over images: 95 % bootstrap, {n_bootstrap:,} resamples of groups of related images, "
            "for these datasets and draws. Over datasets: Student's t, for a new dataset."
        )
    if any(figure.name.startswith("ranks-") for part in parts for figure in part.figures):
        yield (
            "- Ranks: methods whose average ranks differ by less than the critical difference (Nemenyi, 95 %) are not told apart; "
            "blue lines join them."
        )
    rows = [row for row in results.rows if row.method in published(results.kind) and row.variant is None]
    reasons = dict.fromkeys(reason for row in rows for reason in differing(results, row))
    if reasons and "published" not in tables:
        yield f"- The published means are not shown beside these, because the settings differ: {'; '.join(reasons)}."


def _realistic(results: BenchmarkResults) -> str:
    """What a realistic draw is, and how many of the runs lack a class."""
    drawn = [run.absent_classes for run in results.runs if run.status == "done" and run.shots != NO_SHOTS]
    known = [classes for classes in drawn if classes is not None]
    lack = f" {sum(map(bool, known)):,} of {count(len(known), 'run')} lacked a class." if known else ""
    return (
        "- A run draws its images at random from all training images: as many as the number of classes times the images per class. "
        f"Classes have them on average only, and may have none.{lack}"
    )


def planned_runs(results: BenchmarkResults) -> int:
    """Number of runs of the whole grid: a method without training images has one run on each dataset."""
    without = {run.row.method for run in results.runs if run.shots == NO_SHOTS} | _without_images(results)
    every = len(results.shots) * len(results.seeds)
    return len(results.datasets) * sum(1 if row.method in without else every for row in results.rows)


def _without_images(results: BenchmarkResults) -> set[str]:
    from biomedcoop.methods import all_methods

    known = all_methods()
    return {row.method for row in results.rows if row.method in known and not known[row.method].abilities.uses_images}
