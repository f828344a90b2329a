"""The pages of results: their tables are those of the data files, short reading, links that lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.figures import FIGURES, numbers
from benchmarks.pages import BLOCK, PAGES, page_names, publish, read_tables, renewed, write_tables
from biomedcoop.errors import UserError
from biomedcoop.report.table import Table

ROOT = PAGES.parents[1]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
MADE = [(ROOT / "docs" / "reference" / name).resolve() for name in ("commands.md", "python.md")]
FENCE = re.compile(r"```.*?```", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(path: Path) -> set[str]:
    """Of the headings of a document, as hosts of repositories make them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", page_names())
def test_a_page_has_the_tables_of_its_data(page: str) -> None:
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    assert text == renewed(text, read_tables(page), page), "run `python -m benchmarks.pages`"
    assert "\n|" not in BLOCK.sub("", text), "a table outside the markers"


def prose(text: str) -> list[str]:
    """Lines of a page that are neither table, command, heading nor figure."""
    lines = FENCE.sub("", BLOCK.sub("", text)).splitlines()
    return [line for line in lines if line and not line.startswith(("#", "![", "|"))]


@pytest.mark.parametrize("page", [page for page in page_names() if page != "dropped"])
def test_a_page_has_a_command_a_figure_and_short_reading(page: str) -> None:
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    assert "$ BIOMEDCOOP_DATA=FOLDER python -m benchmarks." in text
    assert re.search(r"!\[[^]]+\]\([\w-]+\.png\)", text)
    question = text[: text.index("```")]
    assert prose(question)[-1].endswith("?")
    assert len(prose(text)) - len(prose(question)) <= 10
    assert not [line for line in prose(text) if len(line) > 140]


def test_what_was_dropped_takes_one_short_page() -> None:
    assert len((PAGES / "dropped.md").read_text(encoding="utf-8").splitlines()) <= 100


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(FENCE.sub("", path.read_text(encoding="utf-8"))):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file) if file else path
        if target.resolve() in MADE:  # the strict build of the site checks these links
            continue
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


# --- the command --------------------------------------------------------------------------------------------------

TABLE = Table(["what", "s"], [["load", "1.0"], ["train", "2.0"]], "", ["In turn."])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tables("speed", {"first": TABLE}, tmp_path)
    (tmp_path / "speed.md").write_text("# Speed\n\n<!-- table: first -->\n<!-- end -->\nRead it.\n")
    return tmp_path


def test_new_tables_come_into_the_data_and_the_page(folder: Path) -> None:
    assert read_tables("speed", folder) == {"first": TABLE}
    for seconds in ("1.0", "3.0"):
        publish("speed", {"first": Table(["what", "s"], [["load", seconds]])}, folder)
        text = (folder / "speed.md").read_text()
        assert (
            f"<!-- table: first -->\n\n| what | s |\n| --- | ---: |\n| load | {seconds} |\n\n<!-- end -->\nRead" in text
        )
    assert read_tables("speed", folder)["first"].rows == [["load", "3.0"]]


def test_markers_and_tables_must_agree(folder: Path) -> None:
    with pytest.raises(UserError, match=r"speed\.md has no marker"):
        publish("speed", {"second": TABLE}, folder)
    with pytest.raises(UserError, match=r"speed\.json has no such table"):
        renewed("<!-- table: third -->\n<!-- end -->\n", {"first": TABLE}, "speed")


@pytest.mark.parametrize("page", FIGURES)
def test_figures_come_from_the_tables(page: str, tmp_path: Path) -> None:
    FIGURES[page](read_tables(page), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_numbers_of_a_cell() -> None:
    assert numbers("−3.9 (−5.9 to +1.8)") == [-3.9, -5.9, 1.8]
