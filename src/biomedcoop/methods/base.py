"""The contract of an adaptation method: its settings and abilities, a fit of R runs together, and logits from features.

A method is one file that defines a subclass of :class:`Method` and registers it with :func:`register`: a file of this folder, or a
plug-in (``plugins.py``). A method sees a :class:`Task`: features and labels of the few labelled images, never a test image.
Trainable tensors have a leading *runs* dimension R, so that the seeds of one setting share every pass of the text encoder.
"""

from __future__ import annotations

import dataclasses
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
from biomedcoop.methods.plugin_code import guarded, is_own
from biomedcoop.methods.recipes import check_recipe, recipe_settings
from biomedcoop.methods.settings import declared, make_settings, present_names
from biomedcoop.threads import threads_for, torch_cores

if TYPE_CHECKING:
    import torch
    from torch import Generator, Tensor

State = dict[str, "Tensor"]
"""Tensors of a fitted method, by name; they include all inputs of ``logits`` except the features."""


def state_on(state: State, device: torch.device) -> State:
    """A fitted state on a device; ``fit`` returns it on the CPU, ``logits`` takes it where the features are."""
    return {name: tensor.to(device) for name, tensor in state.items()}


Progress = Callable[[int, int, str], None]
"""Callback with (steps done, steps in total, a short description)."""

Pixels = Callable[[int, "Tensor", "Generator | None"], "Tensor"]
"""Normalised pixels [B, 3, S, S] of support images, on the backbone's device: (run, rows int64 [B], generator) -> pixels.

They are centre crops, or with a generator a random crop of each, drawn by the method's ``crops``.
"""


@dataclass(frozen=True)
class Task:
    """The input of a method.

    Attributes:
        backbone: the frozen model.
        class_names: C names.
        features: raw image features of the support images of each run, [R, N·V, E], from the backbone of
            :meth:`Method.read_from`; the V views of an image are adjacent.
        labels: classes of these rows, int64 [R, N·V].
        sentence_features: raw text features of P sentences per class, [C, P, E]; None unless the method uses sentences.
        val_features, val_labels: validation images of each run, [R, V, E] and int64 [R, V]; None unless the method chooses on them.
        views: number V of views of each support image: 1 for the centre crop, more for random crops.
        per_epoch: True if view e is for epoch e; else a view is drawn at each step.
        folds: fold of each support image, int64 [R, N], for a method that chooses by cross-validation; a run whose folds are all 0
            has none. None unless the method chooses by it.
        unlabelled: raw features of images without labels, [M, E], the same for all runs; None unless the method uses them.
        pixels: the support images on demand; None unless the method changes the towers.
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
    folds: Tensor | None = None
    unlabelled: Tensor | None = None
    pixels: Pixels | None = None

    @property
    def n_images(self) -> int:
        """Number N of support images of a run."""
        return self.labels.shape[1] // self.views


@dataclass(frozen=True)
class Abilities:
    """Abilities and needs of a method.

    Attributes:
        uses_images: the method learns from labelled images.
        uses_sentences: the method reads sentences about each class.
        retargets: a fitted state can be changed to other classes, without images of them.
        chooses: what the method chooses on validation images or by cross-validation, e.g. "C"; empty if nothing.
        otherwise: what it takes where neither is possible, e.g. "C = 1".
        needs_all_views: the method uses all views of all support images at once, so views cannot belong to epochs.
        needs_text_tower: the method encodes texts, names of classes or sentences, so the backbone must have a text tower.
        prompts_per_image: the method makes prompts for each image, so the text tower runs in every prediction.
        uses_unlabelled: the method learns from images without labels too.
        closed_form: a formula gives the fit in milliseconds, so the method can be fitted again for each candidate label or held-out
            image.
        leaves_one_out: where others choose by cross-validation, it leaves out each image or group, one at a time; a fold of
            its task holds one image or group.
        changes_towers: the method trains tensors of the image tower, so it reads pixels, a fit takes minutes to hours, and its
            classifiers encode images with towers of their own.
        before_projection: the method takes image features from before the tower's last projection, so the image tower must have
            one.
    """

    uses_images: bool
    uses_sentences: bool = False
    retargets: bool = False
    chooses: str = ""
    otherwise: str = ""
    needs_all_views: bool = False
    needs_text_tower: bool = True
    prompts_per_image: bool = False
    uses_unlabelled: bool = False
    closed_form: bool = False
    leaves_one_out: bool = False
    changes_towers: bool = False
    before_projection: bool = False


class Method(ABC):
    """One adaptation method.

    Attributes:
        name: name of the method for the user.
        title: name in the paper.
        paper: reference of the paper.
        settings_type: frozen dataclass with fields of :func:`biomedcoop.methods.settings.setting`; its defaults are the published
            values.
        abilities: see :class:`Abilities`.
        parameters: short description of the trained parameters and their number.
        learned: names of the trained tensors in a state, whose values reports count as trained parameters; one that ends with a dot
            begins such names; () if nothing is trained; None where nobody has said, and reports show a dash.
        crops: random crops for its views, as published.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    settings_type: ClassVar[type]
    abilities: ClassVar[Abilities]
    parameters: ClassVar[str]
    learned: ClassVar[tuple[str, ...] | None] = None
    crops: ClassVar[Crops] = Crops()

    @abstractmethod
    def fit(self, task: Task, settings: Any, seeds: Sequence[int], progress: Progress | None = None) -> list[State]:
        """Fit R runs together.

        Args:
            task: features and labels of the runs' support images.
            settings: an instance of ``settings_type``.
            seeds: random seed of each run.
            progress: called with (steps done, steps in total, a short description).

        Returns:
            The state of each run: tensors on the CPU, by name. The default :meth:`logits` reads ``class_embeddings`` [C, E] and
            ``logit_scale``, one number; E is the width of the features. Other names and shapes need a ``logits`` of their own.
        """

    def step_macs(self, task: Task, settings: Any) -> int:
        """Approximate multiply-adds of one training step of one run; they decide how many cores share its operations.

        A method that runs the text tower returns their number; 0 is right for a method that learns from features alone.
        """
        return 0

    def threads(self, task: Task, settings: Any) -> int:
        """Number of threads that share an operation of a fit; the last bits of the result can depend on it."""
        if task.backbone.device.type != "cpu":
            return torch_cores()
        runs = len(task.labels)
        return threads_for(runs * self.step_macs(task, settings), runs)

    def logits(self, state: State, features: Tensor, backbone: Backbone) -> Tensor:
        """Compute logits [N, C] from raw image features [N, E]; by default s · f · tᵀ with unit-norm f and class embeddings t."""
        return state["logit_scale"] * F.normalize(features, dim=-1) @ state["class_embeddings"].T

    def n_learned(self, state: State) -> int | None:
        """Number of values that the method has trained; None where nobody has said."""
        if self.learned is None:
            return None
        begins = tuple(name for name in self.learned if name.endswith("."))
        return sum(value.numel() for name, value in state.items() if name in self.learned or name.startswith(begins))

    def read_from(self, backbone: Backbone) -> Backbone:
        """The backbone whose image features ``fit`` takes: ``backbone``, or its image tower without the projection.

        Raises:
            UserError: the image tower has no projection, and the method needs the features before it.
        """
        if not self.abilities.before_projection:
            return backbone
        from biomedcoop.backbones.projection import before_projection

        return before_projection(backbone)

    def adapted(self, state: State, backbone: Backbone) -> Backbone:
        """The backbone whose features ``logits`` takes: that of :meth:`read_from`, unless the method changes the towers.

        Raises:
            KeyError, ValueError: a tensor of the state is missing or does not fit the backbone.
        """
        return self.read_from(backbone)

    def chooses(self, settings: Any) -> str:
        """What a fit with these settings chooses, as in its abilities; empty if nothing."""
        return self.abilities.chooses

    def check_backbone(self, backbone: Backbone) -> None:
        """Refuse a loaded backbone that the method cannot use.

        Raises:
            UserError: the message says which one to use.
        """
        if self.abilities.changes_towers and backbone.precision != "float32":
            raise UserError(
                f"{self.name} trains the image tower in float32, but {backbone.name} was loaded with precision "
                f"{backbone.precision}; use precision float32"
            )

    def tried(self, state: State) -> list[dict[str, Any]]:
        """What the fit of a state tried, JSON values for the report; empty for a method that does not choose among methods."""
        return []

    def retarget(self, state: State, task: Task, settings: Any) -> State:
        """The state for the classes of ``task``; a method with this ability needs no image of them.

        Raises:
            UserError: the settings at training do not allow new classes.
        """
        raise NotImplementedError  # `register` refuses a method that says it retargets and does not define this

    def settings(
        self,
        single: Mapping[str, Any],
        recipe: str = "paper",
        dataset: str | None = None,
        modality: str | None = None,
        organ: str | None = None,
    ) -> Any:
        """Resolve the settings: the recipe overrides the defaults, and single settings override the recipe.

        Args:
            single: single settings of the user, as values of the right type or strings.
            recipe: a key of :data:`biomedcoop.methods.recipes.RECIPES`.
            dataset: name of the benchmark dataset in the catalogue, or None.
            modality, organ: content of the images, for a method whose words speak of it; None where it is not known.

        Raises:
            UserError: an unknown recipe or setting, or a value that cannot be used.
        """
        check_recipe(recipe)
        changes = {**recipe_settings(recipe, self.name, dataset), **present_names(self.settings_type, single)}
        return make_settings(self.name, self.settings_type, changes)


REGISTRY: dict[str, Method] = {}
"""Every method that was registered in this process, by name."""


ATTRIBUTES = {
    "name": str,
    "title": str,
    "paper": str,
    "settings_type": type,
    "abilities": Abilities,
    "parameters": str,
    "crops": Crops,
}
"""What a method defines, with the type of each."""


def register(method: type[Method]) -> type[Method]:
    """Class decorator that registers a method under its name; the same class of a module that runs again replaces itself.

    Raises:
        TypeError: an attribute or a method that its abilities promise is missing or of another type, or another method has the
            name.
    """
    if not is_own(method):
        import_own()  # their names are taken
    for attribute, kind in ATTRIBUTES.items():
        if not hasattr(method, attribute):
            raise TypeError(f"method {method.__name__} does not define '{attribute}'")
        if not isinstance(getattr(method, attribute), kind):
            raise TypeError(f"'{attribute}' of method {method.__name__} must be of the type {kind.__name__}")
    kinds = type(REGISTRY[method.name]) if method.name in REGISTRY else method, method
    # a notebook's cell or a module that runs again defines the same class again
    if len({(kind.__module__, kind.__qualname__) for kind in kinds}) > 1:
        both = [f"{kind.__name__} in {kind.__module__}" for kind in kinds]
        raise TypeError(f"two methods are called '{method.name}': {' and '.join(both)}; rename one")
    if not dataclasses.is_dataclass(method.settings_type):
        raise TypeError(f"settings_type of '{method.name}' is not a dataclass")
    if method.abilities.retargets and method.retarget is Method.retarget:
        raise TypeError(f"method '{method.name}' says that it retargets, but does not define 'retarget'")
    declared(method.settings_type)
    REGISTRY[method.name] = (method if is_own(method) else guarded(method))()
    return method


def import_own() -> None:
    """Import all files of this folder, which registers the methods of the package."""
    package = importlib.import_module("biomedcoop.methods")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"biomedcoop.methods.{module.name}")
