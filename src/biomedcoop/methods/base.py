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
from typing import TYPE_CHECKING, Any, ClassVar

from biomedcoop.backbones.base import Backbone
from biomedcoop.data.catalogue import Recipe
from biomedcoop.data.images.crops import Crops
from biomedcoop.errors import UserError
from biomedcoop.lazy import F, torch
from biomedcoop.threads import threads_for, torch_cores

if TYPE_CHECKING:
    from torch import Tensor

State = dict[str, "Tensor"]
"""What a fitted method is: named tensors, among them all that ``logits`` needs."""

Progress = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, a few words)."""

RECIPES = ("paper", "base-to-novel", "default", "fast")
"""Published settings for few-shot, published settings for base-to-novel, one setting for every dataset, and one that trains in
about a tenth of the published time or less."""

SPELLINGS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True)
class Task:
    """What a method may see.

    Attributes:
        backbone: the frozen model.
        class_names: C names.
        features: raw image features of the support images of each run, [R, N·V, E]; the V views of an image stand together.
        labels: their classes, int64 [R, N·V].
        sentence_features: raw text features of P sentences per class, [C, P, E]; None unless the method uses sentences.
        val_features, val_labels: validation images of each run, [R, V, E] and int64 [R, V]; None unless the method needs them.
        views: number V of views of each support image: 1 for the centre crop, else random crops.
        per_epoch: view e is for epoch e, rather than any for any.
    """

    backbone: Backbone
    class_names: Sequence[str]
    features: Tensor
    labels: Tensor
    sentence_features: Tensor | None = None
    val_features: Tensor | None = None
    val_labels: Tensor | None = None
    views: int = 1
    per_epoch: bool = False

    @property
    def n_images(self) -> int:
        """Number N of support images of a run."""
        return self.labels.shape[1] // self.views


@dataclass(frozen=True)
class Abilities:
    """What a method can do and what it needs.

    Attributes:
        uses_images: learns from labelled images.
        uses_sentences: reads sentences about each class.
        retargets: its result can be given other classes, without images of them.
        needs_validation: chooses something on validation images.
        needs_image_gradients: changes what the image tower computes, so stored features are of no use to it.
        needs_all_views: takes all views of all support images at once, so it has no epochs with views of their own.
    """

    uses_images: bool
    uses_sentences: bool = False
    retargets: bool = False
    needs_validation: bool = False
    needs_image_gradients: bool = False
    needs_all_views: bool = False


class Method(ABC):
    """One adaptation method.

    Attributes:
        name: as the user writes it.
        title: name as in the paper.
        paper: where it comes from.
        settings_type: a frozen dataclass; its defaults are the published values.
        abilities: see :class:`Abilities`.
        parameters: what is trained, and how many numbers that is, in a few words.
        tuned: what recipe "default" changes of the published values.
        fast: what recipe "fast" changes of those of "default".
        crops: how its random views are cut, as published.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    settings_type: ClassVar[type]
    abilities: ClassVar[Abilities]
    parameters: ClassVar[str]
    tuned: ClassVar[Mapping[str, Any]] = {}
    fast: ClassVar[Mapping[str, Any]] = {}
    crops: ClassVar[Crops] = Crops()

    @abstractmethod
    def fit(self, task: Task, settings: Any, seeds: Sequence[int], progress: Progress | None = None) -> list[State]:
        """Fit R runs together and return the state of each; ``seeds[r]`` decides what is drawn in run r."""

    def step_macs(self, task: Task, settings: Any) -> int:
        """Multiply-adds of one training step of one run, roughly: they decide how many cores share its operations.

        Those of a method that learns from features alone are few; one that runs the text tower says how many.
        """
        return 0

    def threads(self, task: Task, settings: Any) -> int:
        """Threads that share an operation of a fit of all runs of a task; what it learns can depend on them in the last bits."""
        if task.backbone.device.type != "cpu":
            return torch_cores()
        runs = len(task.labels)
        return threads_for(runs * self.step_macs(task, settings), runs)

    def logits(self, state: State, features: Tensor, backbone: Backbone) -> Tensor:
        """Raw image features [N, E] -> logits [N, C]; here s · f · tᵀ with unit-norm f and class embeddings t."""
        return state["logit_scale"] * F.normalize(features, dim=-1) @ state["class_embeddings"].T

    def retarget(self, state: State, task: Task, settings: Any) -> State:
        """The state for other classes: those of ``task``, of which a method that can do this needs no image.

        Raises:
            UserError: the method, or what it was trained with, cannot do it.
        """
        able = ", ".join(name for name, method in all_methods().items() if method.abilities.retargets)
        raise UserError(
            f"method {self.name} cannot take new classes, it learned these from images; methods that can: {able}"
        )

    def settings(self, given: Mapping[str, Any], recipe: str = "paper", published: Recipe | None = None) -> Any:
        """Defaults, then what the recipe changes, then what the user gave: the later wins.

        Args:
            given: single settings, values of the right type or strings.
            recipe: one of :data:`RECIPES`.
            published: hyper-parameters of the benchmark dataset, if it is one.

        Raises:
            UserError: an unknown recipe or setting, or a value that cannot be used.
        """
        if recipe not in RECIPES:
            raise UserError(f"no recipe '{recipe}'; known: {', '.join(RECIPES)}")
        known = {f.name: f for f in dataclasses.fields(self.settings_type)}
        for key in given:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"it has: {', '.join(known) or 'no settings'}"
                raise UserError(f"method {self.name} has no setting '{key}'; {hint}")
        one_for_all = recipe in ("default", "fast")
        own = (
            self.changed(recipe) if one_for_all else self.published(published, base_to_novel=recipe == "base-to-novel")
        )
        values = {**own, **given}
        settings = self.settings_type(**{k: convert(self.name, known[k], v) for k, v in values.items()})
        self.check(settings)
        return settings

    def changed(self, recipe: str) -> Mapping[str, Any]:
        """What recipe "default" or "fast" changes of the published values."""
        return {**self.tuned, **self.fast} if recipe == "fast" else self.tuned

    def published(self, recipe: Recipe | None, base_to_novel: bool) -> Mapping[str, Any]:
        """Settings that were published for one dataset (None: none were) and protocol; the others keep their default."""
        return {}

    def published_for(self, recipe: Recipe, name: str) -> bool:
        """Whether a dataset's published hyper-parameters change anything for this method, with the recipe called ``name``."""
        novel = name == "base-to-novel"
        return name in ("paper", "base-to-novel") and dict(self.published(recipe, novel)) != dict(
            self.published(None, novel)
        )

    def check(self, settings: Any) -> None:  # noqa: B027
        """Refuse values out of range, with the value in the message; nothing to check by default."""


def convert(method: str, field: dataclasses.Field[Any], value: Any) -> Any:
    """``value`` as the type of the setting's default ("8" becomes 8)."""
    kind: Any = type(field.default)
    try:
        if kind is str and not isinstance(value, str):
            raise ValueError
        if kind is bool:
            return value if isinstance(value, bool) else SPELLINGS[str(value).strip().lower()]
        if isinstance(value, bool) or (kind is int and float(value) != int(float(value))):
            raise ValueError
        return kind(float(value)) if kind is int else kind(value)
    except (TypeError, ValueError, OverflowError, KeyError) as error:
        raise UserError(f"method {method}: {field.name}={value!r} is not of type {kind.__name__}") from error


def require_range(
    method: str, settings: Any, least: float, *names: str, above: bool = False, most: float = 1e30
) -> None:
    """Refuse those of the named settings that are below ``least``, (with ``above``) equal to it, or more than ``most``."""
    for name in names:
        value = getattr(settings, name)
        ok = (least < value if above else least <= value) and value <= most
        want = f"{'above' if above else 'at least'} {least:g}"
        require(ok, method, name, value, want if value < most else f"{want} and at most {most:g}")


def require_choice(method: str, settings: Any, name: str, choices: Sequence[str]) -> None:
    """Refuse a value that is none of ``choices``."""
    require(getattr(settings, name) in choices, method, name, getattr(settings, name), " or ".join(choices))


def require(ok: bool, method: str, name: str, value: object, want: str) -> None:
    """Raise a :class:`UserError` that names the setting, its value and what it must be, unless ``ok``."""
    if not ok:
        raise UserError(f"method {method}: {name}={value} must be {want}")


_REGISTRY: dict[str, Method] = {}


def register(method: type[Method]) -> type[Method]:
    """Class decorator that makes a method known by its name."""
    for attribute in ("name", "title", "paper", "settings_type", "abilities", "parameters"):
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


def describe_settings(settings_type: type) -> dict[str, tuple[Any, str]]:
    """Default and meaning of every setting, the meaning as the ``Attributes`` of the docstrings give it."""
    meanings: dict[str, str] = {}
    for kind in reversed(settings_type.__mro__):
        words = (kind.__doc__ or "").partition("Attributes:")[2]
        names: list[str] = []
        for line in filter(None, map(str.strip, words.splitlines())):
            head, colon, rest = line.partition(": ")
            if colon and all(part.isidentifier() for part in head.split(", ")):
                names = head.split(", ")
                meanings.update(dict.fromkeys(names, rest))
            else:
                meanings.update({name: f"{meanings[name]} {line}" for name in names})
    return {f.name: (f.default, meanings.get(f.name, "")) for f in dataclasses.fields(settings_type)}


def template_embeddings(backbone: Backbone, class_names: Sequence[str], template: str) -> Tensor:
    """Unit-norm text features [C, E] of a template with the class names in it, without gradient.

    Raises:
        UserError: a text is longer than the backbone reads; cut, two names might be the same.
    """
    texts = [template.replace("{}", name) for name in class_names]
    for name, tokens in zip(class_names, backbone.token_counts(texts), strict=True):
        if tokens > backbone.context_length:
            raise UserError(
                f"class {name[:60]!r} in its template makes {tokens} tokens, {backbone.name} reads "
                f"{backbone.context_length}; shorten the name"
            )
    with torch.no_grad():
        return F.normalize(backbone.encode_text(texts).to(backbone.learning_dtype), dim=-1)


def require_template(method: str, settings: Any) -> None:
    """Refuse a ``template`` without exactly one place for the class name."""
    require(settings.template.count("{}") == 1, method, "template", repr(settings.template), "a text with one {}")


def text_state(backbone: Backbone, class_embeddings: Tensor, **more: Tensor) -> State:
    """State of a text-based method: unit-norm class embeddings [C, E], the scale, and what else belongs to it."""
    return {
        "class_embeddings": F.normalize(class_embeddings.detach().float(), dim=-1).cpu(),
        "logit_scale": torch.tensor(backbone.logit_scale),
        **{key: value.detach().cpu().clone() for key, value in more.items()},
    }
