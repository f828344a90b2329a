"""Settings as users give them: converted, checked against their declaration, and what is said of those that cannot be used."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from biomedcoop.errors import UserError
from biomedcoop.methods import get_method
from biomedcoop.methods.settings import Setting, declared, make_settings, setting


def settings(**given: object) -> object:
    return get_method("biomedcoop").settings(given)


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
    want = {"epochs": "a whole number of at least 1, e.g. epochs=100", "lr": "a number above 0, e.g. lr=0.0025"}[name]
    with pytest.raises(UserError) as caught:
        settings(**{name: value})
    assert str(caught.value) == f"method biomedcoop: {name}={value!r} must be {want}"


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
    with pytest.raises(UserError, match="method zero-shot has no setting 'zzz'; known: template"):
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


# -- declarations


@dataclass(frozen=True)
class Parent:
    """Settings of every kind."""

    rate: float = setting(0.5, "a rate", above=0, most=1)
    share: float = setting(0.0, "a share", below=1)
    words: str = setting("two words", "words")
    place: str = setting("end", "a place", choices=("end", "front"))
    fast: bool = setting(False, "whether it is fast")


@dataclass(frozen=True)
class Child(Parent):
    """Another default, and a setting of its own."""

    rate: float = 0.25
    steps: int = setting(3, "steps", least=1)


def test_a_subclass_inherits_what_is_declared() -> None:
    settings = declared(Child)
    assert list(settings) == ["rate", "share", "words", "place", "fast", "steps"]
    assert settings["rate"] == Setting(0.25, "a rate", above=0, most=1)
    assert declared(Parent)["rate"].default == 0.5
    with pytest.raises(UserError, match=r"method made-up: rate=2\.0 must be above 0 and at most 1"):
        make_settings("made-up", Child, {"rate": 2})


def test_allowed_values_in_words() -> None:
    words = {name: one.allowed for name, one in declared(Child).items()}
    assert words == {
        "rate": "above 0 and at most 1",
        "share": "below 1",
        "words": "a text",
        "place": "end or front",
        "fast": "true or false",
        "steps": "at least 1",
    }
    assert Setting(1.0, "any number").allowed == "a finite number"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rate": 0}, "rate=0.0 must be above 0 and at most 1"),
        ({"share": 1}, "share=1.0 must be below 1"),
        ({"share": "-inf"}, "share=-inf must be below 1 and finite"),
        ({"place": "middle"}, "place=middle must be end or front"),
        ({"words": 3}, "words=3 must be a text, e.g. words="),
        ({"fast": "perhaps"}, "fast='perhaps' must be true or false"),
        ({"steps": 10**400}, "must be a whole number of at least 1, e.g. steps=3"),
    ],
)
def test_each_rule_refuses(given: dict[str, object], words: str) -> None:
    with pytest.raises(UserError) as caught:
        make_settings("made-up", Child, given)
    assert words in str(caught.value)
    assert str(caught.value).startswith("method made-up: ")


def test_limits_that_may_be_reached() -> None:
    assert make_settings("made-up", Child, {"rate": 1, "steps": 1, "fast": "yes"}) == Child(rate=1, steps=1, fast=True)
    assert make_settings("made-up", Child, {"share": -1e300}).share == -1e300


def test_a_field_must_be_declared() -> None:
    @dataclass(frozen=True)
    class Bare:
        epochs: int = 3

    with pytest.raises(TypeError, match=r"Bare\.epochs is not declared by setting\(\)"):
        declared(Bare)
