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
from biomedcoop.data.images.crops import Crops
from biomedcoop.errors import UserError
from biomedcoop.lazy import F
from biomedcoop.methods.recipes import RECIPES, recipe_settings
from biomedcoop.methods.settings import declared, make_settings
from biomedcoop.threads import threads_for, torch_cores

if TYPE_CHECKING:
    from torch import Tensor

State = dict[str, "Tensor"]
"""What a fitted method is: named tensors, among them all that ``logits`` needs."""

Progress = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, a few words)."""


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
        needs_all_views: takes all views of all support images at once, so it has no epochs with views of their own.
        prompts_per_image: has prompts of its own for each image, so the text tower runs in every prediction.
    """

    uses_images: bool
    uses_sentences: bool = False
    retargets: bool = False
    needs_validation: bool = False
    needs_all_views: bool = False
    prompts_per_image: bool = False


class Method(ABC):
    """One adaptation method.

    Attributes:
        name: as the user writes it.
        title: name as in the paper.
        paper: where it comes from.
        settings_type: a frozen dataclass of :func:`biomedcoop.methods.settings.setting`; its defaults are the published values.
        abilities: see :class:`Abilities`.
        parameters: what is trained, and how many numbers that is, in a few words.
        crops: how its random views are cut, as published.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    settings_type: ClassVar[type]
    abilities: ClassVar[Abilities]
    parameters: ClassVar[str]
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

    def settings(self, given: Mapping[str, Any], recipe: str = "paper", dataset: str | None = None) -> Any:
        """Defaults, then what the recipe changes, then what the user gave: the later wins.

        Args:
            given: single settings, values of the right type or strings.
            recipe: a key of :data:`biomedcoop.methods.recipes.RECIPES`.
            dataset: name of the benchmark dataset in the catalogue, if it is one.

        Raises:
            UserError: an unknown recipe or setting, or a value that cannot be used.
        """
        if recipe not in RECIPES:
            raise UserError(f"no recipe '{recipe}'; known: {', '.join(RECIPES)}")
        return make_settings(self.name, self.settings_type, {**recipe_settings(recipe, self.name, dataset), **given})


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
    declared(method.settings_type)
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
