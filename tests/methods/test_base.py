"""Settings as users give them, the learned prompts' edges, and what a new method is told when it forgets something."""

from __future__ import annotations

from dataclasses import dataclass
from types import new_class

import pytest

from biomedcoop.errors import UserError
from biomedcoop.methods import Abilities, Method, all_methods, get_method, register


def settings(**given: object) -> object:
    return get_method("biomedcoop").settings(given)


# -- settings


def test_settings_take_the_type_of_their_default() -> None:
    values = settings(epochs="8", batch_size=8.0, lr="1e-3", threshold=2, context_words="a scan of")
    assert values == settings(epochs=8, batch_size=8, lr=0.001, threshold=2.0, context_words="a scan of")
    assert (type(values.epochs), type(values.batch_size), type(values.threshold)) == (int, int, float)  # type: ignore[attr-defined]
    assert settings(epochs="1e2") == settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", "many"),
        ("epochs", 2.5),
        ("epochs", "2.5"),
        ("epochs", True),
        ("epochs", None),
        ("epochs", ""),
        ("epochs", "inf"),
        ("epochs", float("nan")),
        ("epochs", [3]),
        ("lr", "fast"),
        ("lr", None),
        ("lr", False),
    ],
)
def test_values_of_another_type_are_named(name: str, value: object) -> None:
    kind = "int" if name == "epochs" else "float"
    with pytest.raises(UserError) as caught:
        settings(**{name: value})
    assert str(caught.value) == f"method biomedcoop: {name}={value!r} is not of type {kind}"


@pytest.mark.parametrize(
    ("name", "value", "want"),
    [
        ("epochs", 0, "at least 1"),
        ("max_norm", -1, "at least 0"),
        ("warmup_epochs", -1, "at least 0"),
        ("batch_size", -4, "at least 1"),
        ("n_sentences", 0, "at least 1"),
        ("lr", 0.0, "above 0"),
        ("lr", "nan", "above 0"),
        ("lr", "inf", "above 0"),
        ("threshold", -1.5, "above 0"),
        ("sccm_weight", -0.1, "at least 0"),
        ("kdsp_weight", "nan", "at least 0"),
        ("momentum", -1, "at least 0"),
        ("weight_decay", "inf", "at least 0"),
    ],
)
def test_values_out_of_range_are_named(name: str, value: object, want: str) -> None:
    with pytest.raises(UserError, match=rf"method biomedcoop: {name}=.* must be {want}"):
        settings(**{name: value})


def test_unknown_settings() -> None:
    with pytest.raises(UserError, match=r"method biomedcoop has no setting 'epoch'; did you mean epochs\?"):
        settings(epoch=3)
    with pytest.raises(UserError, match="method zero-shot has no setting 'zzz'; it has: template"):
        get_method("zero-shot").settings({"zzz": 1})


def test_published_settings_of_a_dataset() -> None:
    """λ1, λ2 and τ of the paper for BUSI; the user's word goes over them, the default stands for what was not published."""
    method = get_method("biomedcoop")
    values = method.settings({}, "paper", "busi")
    assert (values.sccm_weight, values.kdsp_weight, values.threshold) == (0.75, 0.75, 1.5)
    assert (values.epochs, values.batch_size, values.lr) == (100, 4, 0.0025)
    assert method.settings({"kdsp_weight": 3}, "paper", "busi").kdsp_weight == 3.0
    defaults = method.settings({})
    assert (defaults.sccm_weight, defaults.kdsp_weight, defaults.threshold) == (1.0, 1.0, 1.5)


@pytest.mark.parametrize("template", ["no place", "{} and {}", ""])
def test_templates_have_one_place_for_the_name(template: str) -> None:
    with pytest.raises(UserError, match=r"a text with one \{\}"):
        get_method("zero-shot").settings({"template": template})


# -- the registry


def test_methods_by_name() -> None:
    assert {"biomedcoop", "zero-shot", "zero-shot-ensemble"} <= set(all_methods())
    assert list(all_methods()) == sorted(all_methods())
    assert all(get_method(name).name == name for name in all_methods())
    with pytest.raises(UserError, match=r"no method 'biomedcop'; did you mean biomedcoop\?"):
        get_method("biomedcop")
    with pytest.raises(UserError, match="no method 'xyz'; known: biomedcoop, "):
        get_method("xyz")


@dataclass(frozen=True)
class NoSettings:
    """A method without settings."""


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
        *(({key: None}, f"method MadeUp does not say its '{key}'") for key in COMPLETE if key != "fit"),
        ({"name": "biomedcoop"}, "two methods are called 'biomedcoop'"),
        ({"settings_type": dict}, "settings_type of 'made-up' is no dataclass"),
        ({"fit": None}, "abstract"),
    ],
)
def test_an_incomplete_method_is_not_registered(change: dict, words: str) -> None:
    before = all_methods()
    with pytest.raises(TypeError, match=words):
        register(made(**change))
    assert all_methods() == before


def test_a_complete_method_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("biomedcoop.methods.base._REGISTRY", {})
    kind = made()
    assert register(kind) is kind
    method = get_method("made-up")
    with pytest.raises(UserError, match="method made-up has no setting 'x'; it has: no settings"):
        method.settings({"x": 1})
