"""Methods by name, and what a new method is told when it forgets something."""

from __future__ import annotations

from dataclasses import dataclass
from types import new_class

import pytest

from biomedcoop.errors import UserError
from biomedcoop.methods import Abilities, Method, all_methods, get_method, register
from biomedcoop.methods.base import REGISTRY


def test_methods_by_name() -> None:
    assert {"biomedcoop", "zero-shot", "zero-shot-ensemble"} <= set(all_methods())
    assert list(all_methods()) == sorted(all_methods())
    assert all(get_method(name).name == name for name in all_methods())
    with pytest.raises(UserError, match=r"no method 'biomedcop'; did you mean biomedcoop or biomed-dpt\?"):
        get_method("biomedcop")
    with pytest.raises(UserError, match="no method 'xyz'; known: auto, biomed-dpt, biomedcoop, "):
        get_method("xyz")


@dataclass(frozen=True)
class NoSettings:
    """A method without settings."""


@dataclass(frozen=True)
class Undeclared:
    """A setting without a declaration."""

    epochs: int = 3


COMPLETE = {
    "name": "made-up",
    "title": "Made up",
    "paper": "none",
    "settings_type": NoSettings,
    "abilities": Abilities(uses_images=False),
    "parameters": "nothing",
    "fit": lambda self, task, settings, seeds, progress=None: [],
}


def made(**change: object) -> type[Method]:
    parts = {key: value for key, value in {**COMPLETE, **change}.items() if value is not None}
    return new_class("MadeUp", (Method,), exec_body=lambda namespace: namespace.update(parts))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        *(({key: None}, f"method MadeUp does not define '{key}'") for key in COMPLETE if key != "fit"),
        ({"name": 5}, "'name' of method MadeUp must be of the type str"),
        ({"abilities": {"uses_images": True}}, "'abilities' of method MadeUp must be of the type Abilities"),
        ({"name": "biomedcoop"}, "two methods are called 'biomedcoop'"),
        ({"settings_type": dict}, "settings_type of 'made-up' is not a dataclass"),
        ({"settings_type": Undeclared}, r"Undeclared\.epochs is not declared by setting"),
        ({"fit": None}, "abstract"),
        ({"abilities": Abilities(uses_images=False, retargets=True)}, "does not define 'retarget'"),
    ],
)
def test_an_incomplete_method_is_not_registered(change: dict, words: str) -> None:
    before = all_methods()
    with pytest.raises(TypeError, match=words):
        register(made(**change))
    assert all_methods() == before


def test_a_complete_method_is_registered() -> None:
    kind = made()
    assert register(kind) is kind
    try:
        with pytest.raises(UserError, match="method made-up has no setting 'x'; known: none"):
            get_method("made-up").settings({"x": 1})
        register(made(title="As edited"))  # the cell of a notebook, run again
        assert get_method("made-up").title == "As edited"
    finally:
        del REGISTRY["made-up"]
