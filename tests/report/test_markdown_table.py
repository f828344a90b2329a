"""A table of cells as Markdown."""

from __future__ import annotations

from biomedcoop.report.table import Table


def test_numbers_are_on_the_right() -> None:
    assert Table(["what", "s"], [["load", 1]]).markdown() == "| what | s |\n| --- | ---: |\n| load | 1 |"


def test_sides_and_notes() -> None:
    table = Table(["a", "b", "c"], [["x", "y", "z"]], "lrc", ["One.", "Two."])
    assert table.markdown().splitlines()[1:] == ["| --- | ---: | :---: |", "| x | y | z |", "", "One.", "", "Two."]
