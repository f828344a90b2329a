from __future__ import annotations

import pytest

from biomedcoop.data.name_lists import join_names, split_names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cyst,stone", ["cyst", "stone"]),
        (' kidney_cyst ,\n"stone, large", ', ["kidney cyst", "stone, large"]),
        (' "cyst, large",stone,, ', ["cyst, large", "stone"]),
        ('a "quoted" one, "say ""b"""', ['a "quoted" one', 'say "b"']),
        ("Nävus,a{b", ["Nävus", "a{b"]),
        ("cyst,\n large  stone", ["cyst", "large stone"]),
        ("", []),
        (",,", []),
    ],
)
def test_names_with_commas_stand_in_quotes(text: str, names: list[str]) -> None:
    assert split_names(text) == names
    assert split_names(join_names(names)) == names
