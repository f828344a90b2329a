"""What an adaptation method is: settings, abilities, a fit over R runs at once, and how its state turns features into logits.

A method is one file in this folder that defines a subclass of :class:`Method` and registers an instance with :func:`register`.
It sees a :class:`Task`: features and labels of the few labelled images, never a test image. Trainable state carries a leading
*runs* dimension R, so that seeds of one setting share every pass of the text encoder.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from biomedcoop.backbones.base import Backbone
from biomedcoop.data.catalogue import Recipe
from biomedcoop.errors import UserError

State = dict[str, Tensor]
"""What a fitted method is: named tensors, among them all that ``logits`` needs."""

Progress = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, a few words)."""


@dataclass(frozen=True)
class Task:
    """What a method may see.

    Attributes:
        backbone: the frozen model.
        class_names: C names.
        features: raw image features of the support images of each run, [R, N, E].
        labels: their classes, int64 [R, N].
        sentence_features: raw text features of P sentences per class, [C, P, E]; None unless the method uses sentences.
    """

    backbone: Backbone
    class_names: Sequence[str]
    features: Tensor
    labels: Tensor
    sentence_features: Tensor | None = None


@dataclass(frozen=True)
class Abilities:
    """What a method can do and what it needs."""

    trains: bool
    uses_sentences: bool = False
    retargets: bool = False
    needs_validation: bool = False
    needs_image_gradients: bool = False


class Method(ABC):
    """One adaptation method.

    Attributes:
        name: as the user writes it.
        title: name as in the paper.
        paper: where it comes from.
        settings_type: a frozen dataclass; its defaults are the published values.
        abilities: see :class:`Abilities`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    settings_type: ClassVar[type]
    abilities: ClassVar[Abilities]

    @abstractmethod
    def fit(self, task: Task, settings: Any, seeds: Sequence[int], progress: Progress | None = None) -> list[State]:
        """Fit R runs together and return the state of each; ``seeds[r]`` orders the batches of run r."""

    def logits(self, state: State, features: Tensor) -> Tensor:
        """Raw image features [N, E] -> logits [N, C]; here s · f · tᵀ with unit-norm f and class embeddings t."""
        return state["logit_scale"] * F.normalize(features, dim=-1) @ state["class_embeddings"].T

    def settings(self, given: Mapping[str, Any], recipe: Recipe | None = None) -> Any:
        """Published settings, those published for the dataset, those that the user gave: the later wins.

        Raises:
            UserError: an unknown setting or a value that cannot be used.
        """
        known = {f.name: f for f in dataclasses.fields(self.settings_type)}
        for key in given:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"it has: {', '.join(known) or 'no settings'}"
                raise UserError(f"method {self.name} has no setting '{key}'; {hint}")
        values = {**(self.published(recipe) if recipe else {}), **given}
        settings = self.settings_type(**{k: convert(self.name, known[k], v) for k, v in values.items()})
        self.check(settings)
        return settings

    def published(self, recipe: Recipe) -> Mapping[str, Any]:
        """Settings that were published for one dataset; what is not among them keeps its default."""
        return {}

    def check(self, settings: Any) -> None:  # noqa: B027
        """Refuse values out of range, with the value in the message; nothing to check by default."""


def convert(method: str, field: dataclasses.Field[Any], value: Any) -> Any:
    """``value`` as the type of the setting's default ("8" becomes 8)."""
    kind: Any = type(field.default)
    try:
        if isinstance(value, bool) or (kind is int and float(value) != int(float(value))):
            raise ValueError
        return kind(float(value)) if kind is int else kind(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"method {method}: {field.name}={value!r} is not of type {kind.__name__}") from error


def require(ok: bool, method: str, name: str, value: object, want: str) -> None:
    """Raise a :class:`UserError` that names the setting, its value and what it must be, unless ``ok``."""
    if not ok:
        raise UserError(f"method {method}: {name}={value} must be {want}")


_REGISTRY: dict[str, Method] = {}


def register(method: type[Method]) -> type[Method]:
    """Class decorator that makes a method known by its name."""
    for attribute in ("name", "title", "paper", "settings_type", "abilities"):
        if not hasattr(method, attribute):
            raise TypeError(f"method {method.__name__} does not say its '{attribute}'")
    if method.name in _REGISTRY:
        raise TypeError(f"two methods are called '{method.name}'")
    if not dataclasses.is_dataclass(method.settings_type):
        raise TypeError(f"settings_type of '{method.name}' is no dataclass")
    _REGISTRY[method.name] = method()
    return method


def all_methods() -> dict[str, Method]:
    """Every method by name; the files of this folder are found by themselves."""
    package = importlib.import_module("biomedcoop.methods")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"biomedcoop.methods.{module.name}")
    return dict(sorted(_REGISTRY.items()))


def get_method(name: str) -> Method:
    """The method called ``name``; near matches are offered if there is none."""
    methods = all_methods()
    if name not in methods:
        near = difflib.get_close_matches(name, methods, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(methods)}"
        raise UserError(f"no method '{name}'; {hint}")
    return methods[name]


def text_state(backbone: Backbone, class_embeddings: Tensor, **more: Tensor) -> State:
    """State of a text-based method: unit-norm class embeddings [C, E], the scale, and what else belongs to it."""
    return {
        "class_embeddings": F.normalize(class_embeddings.detach().float(), dim=-1).cpu(),
        "logit_scale": torch.tensor(backbone.logit_scale),
        **{key: value.detach().cpu().clone() for key, value in more.items()},
    }
