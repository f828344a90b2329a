"""Pages of results whose tables and figures come from data files: write those of every page anew.

    python -m benchmarks.pages

``docs/results/data/PAGE.json`` holds the tables of ``docs/results/PAGE.md`` by name. Each stands in the page between two markers,
``<!-- table: NAME -->`` and ``<!-- end -->``. The command of a page, with ``--page``, writes its tables into the data file and the
page. What follows from them is written too: ``src/biomedcoop/methods/recommended.json``, the README, ``docs/methods.md``
and ``docs/every-method.md`` (``recommend.py``).
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from benchmarks.command import start
from benchmarks.figures import FIGURES
from benchmarks.recommend import read_report, recommend, renewed_words, shipped
from biomedcoop.errors import UserError
from biomedcoop.output import write_atomically
from biomedcoop.report.table import Table

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "results"
WORDS = (ROOT / "README.md", ROOT / "docs" / "methods.md", ROOT / "docs" / "every-method.md")
RECOMMENDED = ROOT / "src" / "biomedcoop" / "methods" / "recommended.json"
BLOCK = re.compile(r"(<!-- table: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def data_file(page: str, folder: Path = PAGES) -> Path:
    return folder / "data" / f"{page}.json"


def read_tables(page: str, folder: Path = PAGES) -> dict[str, Table]:
    """The tables of a page by name."""
    content = json.loads(data_file(page, folder).read_text(encoding="utf-8"))
    return {name: Table(**table) for name, table in content.items()}


def write_tables(page: str, tables: Mapping[str, Table], folder: Path = PAGES) -> None:
    """Write the data file of a page, a row a line."""

    def text(value: object) -> str:
        return json.dumps(value, ensure_ascii=False)

    entries = []
    for name, table in tables.items():
        rows = ",\n   ".join(text(list(row)) for row in table.rows)
        parts = {key: text(value) for key, value in asdict(table).items() if value} | {"rows": f"[\n   {rows}\n  ]"}
        entries.append(f" {text(name)}: {{\n  " + ",\n  ".join(f"{text(k)}: {v}" for k, v in parts.items()) + "\n }")
    path = data_file(page, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, ("{\n" + ",\n".join(entries) + "\n}\n").encode())


def renewed(text: str, tables: Mapping[str, Table], page: str) -> str:
    """The text of a page with its tables written anew.

    Raises:
        UserError: a marker without a table, or a table without a marker.
    """
    marked = [name for _, name, _ in BLOCK.findall(text)]
    if missing := [name for name in marked if name not in tables]:
        raise UserError(f"{page}.md has a marker for the table '{missing[0]}', {page}.json has no such table")
    if unmarked := [name for name in tables if name not in marked]:
        raise UserError(f"{page}.json has the table '{unmarked[0]}', {page}.md has no marker for it")
    return BLOCK.sub(lambda block: f"{block[1]}\n{tables[block[2]].markdown()}\n\n{block[3]}", text)


def renew(page: str, folder: Path = PAGES) -> None:
    """Write the tables of one page, and its figure where it comes from them, anew from its data file."""
    path, tables = folder / f"{page}.md", read_tables(page, folder)
    write_atomically(path, renewed(path.read_text(encoding="utf-8"), tables, page).encode())
    if page in FIGURES:
        FIGURES[page](tables, folder / f"{page}.png")


def publish(page: str, tables: Mapping[str, Table], folder: Path = PAGES) -> None:
    """Put new tables in the place of those of the same name, in the data file and on the page."""
    write_tables(page, {**read_tables(page, folder), **tables}, folder)
    renew(page, folder)


def page_names(folder: Path = PAGES) -> list[str]:
    """Pages that have a data file."""
    return sorted(path.stem for path in (folder / "data").glob("*.json"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    for page in page_names():
        renew(page)
    content = recommend(read_report())
    write_atomically(RECOMMENDED, shipped(content).encode())
    for path in WORDS:
        write_atomically(path, renewed_words(path.read_text(encoding="utf-8"), content).encode())


if __name__ == "__main__":
    start(main)
