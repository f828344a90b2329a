"""The notebooks run from top to bottom, in an empty folder and a kernel of their own; what is kept of their outputs is small."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
LARGEST = 200_000
"""Bytes of a notebook with its outputs."""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_with_small_outputs_of_a_whole_run(path: Path) -> None:
    assert path.stat().st_size < LARGEST
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run it anew from the top"
    assert any(cell.outputs for cell in code)
    text = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    assert "simulated" in text
    assert "Not a medical device" in text
    kept = path.read_text(encoding="utf-8")
    assert not any(place in kept for place in ("/home/", "/root/", "/tmp/", "ipykernel"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    book = nbformat.read(path, as_version=4)
    NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    nbformat.validate(book)


def test_there_are_three() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["a-new-method", "comparing-methods", "folder-to-report"]
