"""Figures are drawn as PNG and PDF, the same each time, and tell rows apart without colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biomedcoop.benchmark.figures.curves import shots_figure
from biomedcoop.benchmark.figures.style import looks
from biomedcoop.benchmark.results import TableRow, read_results
from biomedcoop.errors import Note

from .fake_grid import write_grid


def test_no_two_of_many_rows_look_alike_in_grey() -> None:
    rows = [TableRow("mini", f"method-{n}") for n in range(12)]
    found = looks(rows, "method-3")
    assert len({(look.marker, str(look.line)) for look in found.values()}) == 12
    assert len({(look.colour, look.hatch) for look in found.values()}) == 12
    assert found[rows[3]].colour == "black"


def test_a_figure_is_the_same_each_time(tmp_path: Path) -> None:
    results = read_results(write_grid(tmp_path / "out", datasets=["busi", "scans $5"], seeds=(1,)))
    paths = [tmp_path / name for name in ("a.png", "a.pdf", "b.png", "b.pdf")]
    shots_figure(results, results.rows, paths)
    assert paths[0].read_bytes() == paths[2].read_bytes()
    assert paths[1].read_bytes() == paths[3].read_bytes()
    assert paths[1].read_bytes().startswith(b"%PDF")
    assert b"/Type3" not in paths[1].read_bytes()  # journals refuse letters of type 3


def test_letters_that_the_font_lacks_cause_one_note(tmp_path: Path) -> None:
    results = read_results(write_grid(tmp_path / "out", datasets=["数据一"], seeds=(1,)))
    with pytest.warns() as caught:
        shots_figure(results, results.rows, [tmp_path / "a.png", tmp_path / "a.pdf"])
    assert [one.category for one in caught] == [Note]


@pytest.mark.parametrize("methods", [["biomedcoop"], ["zero-shot"], ["zero-shot", "biomedcoop"]])
def test_a_figure_has_something_on_it(methods: list[str], tmp_path: Path) -> None:
    results = read_results(write_grid(tmp_path / "out", datasets=["busi"], methods=methods))
    shots_figure(results, results.rows, [tmp_path / "a.png"])
    with Image.open(tmp_path / "a.png") as image:
        assert np.asarray(image.convert("L")).std() > 5
