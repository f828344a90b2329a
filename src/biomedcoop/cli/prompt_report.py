"""Text output of ``biomedcoop prompts check``."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from biomedcoop.cli.console import print_first, print_table

if TYPE_CHECKING:
    from biomedcoop.evaluation.sentences import PromptReport


def print_summary(reports: list[PromptReport]) -> None:
    """Print one row for each file of the library."""
    from rich.table import Table

    table = Table("library:", "classes", "sentences", "words", "tokens")
    for name in ("repeats", "near-repeats", "openings", "length", "other class", "cut", "closest classes", "cosine"):
        table.add_column(name)
    for report in reports:
        kinds = Counter(fault.kind for fault in report.faults)
        a, b, cosine = report.closest[0] if report.closest else ("", "", float("nan"))
        cells = (
            report.source.removeprefix("library:"),
            len(report.counts),
            sum(report.counts.values()),
            f"{report.words[0]}-{report.words[1]}",
            "" if report.tokens is None else report.tokens,
            kinds["repeat"] + kinds["shared"],
            *(kinds[kind] for kind in ("near-repeat", "opening", "length", "other class")),
            len(report.cut),
            *((f"{a} / {b}", f"{cosine:.2f}") if report.closest else ("", "")),
        )
        table.add_row(*map(str, cells))
    print_table(table)
    _print_lines(reports)


def print_report(report: PromptReport) -> None:
    """Print one row for each class, and the findings of the backbone."""
    from rich.table import Table
    from rich.text import Text

    table = Table("class", "sentences", title=Text(report.source))
    if report.outliers:
        table.add_column("outliers", justify="right")
    if report.accuracy:
        for title in ("recall, sentences", "recall, class name"):
            table.add_column(title, justify="right")
    recall = {key: values["recall"] for key, values in (report.accuracy or {}).items()}
    for number, (name, count) in enumerate(report.counts.items()):
        cells = [name, str(count)]
        if report.outliers:
            cells += [str(report.outliers[number].beyond)]
        # a class without images on this split has no recall
        cells += ["-" if (value := recall[key][name]) is None else f"{100 * value:.0f} %" for key in recall]
        table.add_row(*map(Text, cells))
    print_table(table)
    for odd in report.outliers:
        print(f"least like the others of '{odd.class_name}': {odd.sentence} (z {odd.z:.1f})")
    if report.closest:
        pairs = ", ".join(f"{a} / {b} {cosine:.2f}" for a, b, cosine in report.closest)
        print(f"closest classes to {report.backbone}: {pairs}")
    for key, values in (report.accuracy or {}).items():
        a = values["accuracy"]
        interval = "(–)" if a["low"] is None else f"({100 * a['low']:.1f} to {100 * a['high']:.1f})"
        print(f"{report.images}, by {key}: {100 * a['value']:.1f} % right {interval}")
    if report.dropped is not None:
        print(
            f"the selection drops {len(report.dropped)} of {min(report.counts.values())} sentences of every class there"
        )
    if report.unused:
        print(f"not of this task: {', '.join(report.unused)}")
    _print_lines([report])


def _print_lines(reports: list[PromptReport]) -> None:
    print_first(f"warning: {line}" for report in reports for line in report.warnings)
    print_first(f"problem: {line}" for report in reports for line in report.problems)
    if not any(report.problems for report in reports):
        print("no problem found")
