"""Figures ignore a user's settings, and say once which letters their font lacks."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import matplotlib as mpl
import pytest

from biomedcoop.drawing import drawing, letters_noted, new_figure
from biomedcoop.errors import Note
from biomedcoop.report.figures import write_figure
from biomedcoop.report.html.pictures import svg


def said(caught: list[warnings.WarningMessage]) -> list[str]:
    assert all(one.category is Note for one in caught)
    return [str(one.message) for one in caught]


def test_one_note_for_all_files_and_figures(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with letters_noted():
            for text in ("良", "恶", "plain"):
                paths = [tmp_path / f"{text}.{ending}" for ending in ("png", "pdf")]
                write_figure(lambda figure, text=text: figure.text(0.5, 0.5, text), (2, 1), *paths)
            warnings.warn("another", Note, stacklevel=1)
    assert said(caught) == [
        "another",
        "The font of the figures lacks 2 letters; figures show boxes in their place: 良, 恶",
    ]


def test_a_figure_that_its_user_saves() -> None:
    figure = new_figure(2, 1)
    figure.text(0.5, 0.5, "性\u0995")  # the second is of a script that matplotlib cannot shape
    for kind in ("png", "pdf", "svg"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            figure.savefig(io.BytesIO(), format=kind, bbox_inches="tight")
        assert said(caught) == [
            "The font of the figures lacks 2 letters; figures show boxes in their place: 性, \u0995"
        ]
        assert Path(caught[0].filename) == Path(__file__)


def test_letters_that_stay_text_need_no_note() -> None:
    def make() -> mpl.figure.Figure:
        figure = new_figure(2, 1)
        figure.text(0.5, 0.5, "性")
        return figure

    with warnings.catch_warnings(), letters_noted():
        warnings.simplefilter("error")
        assert "性" in svg(make, "one", "a letter")


def test_a_letter_that_cannot_be_printed_and_many() -> None:
    for text, message in (
        ("\ue000", "lacks the letter U\\+E000; figures show a box in its place"),
        ("".join(map(chr, range(0x4E00, 0x4E20))), "lacks 32 letters; .*, …$"),
    ):
        figure = new_figure(2, 1)
        figure.text(0.5, 0.5, text)
        with pytest.warns(Note, match=message):
            figure.savefig(io.BytesIO(), format="png")


def test_settings_of_the_user_are_neither_read_nor_changed() -> None:
    with mpl.rc_context({"font.size": 20}):
        with drawing({"lines.linewidth": 3}):
            assert mpl.rcParams["font.size"] == 10
            assert mpl.rcParams["lines.linewidth"] == 3
        assert mpl.rcParams["font.size"] == 20
        assert mpl.rcParams["lines.linewidth"] == 1.5
