"""Former names work with a note that says what to write and until when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import biomedcoop as bc
from biomedcoop.deprecation import Deprecation, deprecated
from biomedcoop.errors import Note
from biomedcoop.methods import get_method
from biomedcoop.methods.settings import FORMER_NAMES_END
from biomedcoop.version import __version__


def number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def test_the_note_points_to_the_line_that_used_the_former_name() -> None:
    with pytest.warns(Deprecation, match=r"^places is now digits; the former name ends with version 9\.0$") as seen:
        deprecated("places", "digits", "9.0")
    assert seen[0].filename == __file__


def test_the_former_name_of_a_setting_still_works() -> None:
    with pytest.warns(Deprecation, match="the setting context_length is now n_context; .* version"):
        settings = get_method("coop").settings({"context_length": 2})
    assert settings.n_context == 2
    with pytest.raises(bc.UserError, match="give n_context alone"):
        get_method("coop").settings({"context_length": 2, "n_context": 3})
    with pytest.raises(bc.UserError, match="has no setting 'context_length'"):
        get_method("linear-probe").settings({"context_length": 2})


def test_a_former_name_ends_when_it_was_said_to() -> None:
    assert number(__version__) < number(FORMER_NAMES_END), "remove the former names of settings that users write"


def test_the_command_line_prints_one_line(cli: Any, discs: Path, tmp_path: Path) -> None:
    words = ("--method", "coop", "--shots", 1, "--backbone", Path(__file__).parent / "parity_a" / "model")
    changed = ("--set", "context_length=4", "--set", "epochs=1")
    result = cli("train", "--data", discs, "--out", tmp_path / "run", *words, *changed)
    assert result.status == 0, result.err
    assert result.err.count("note: the setting context_length is now n_context;") == 1
    assert issubclass(Deprecation, Note)
