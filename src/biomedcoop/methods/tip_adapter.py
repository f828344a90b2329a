"""Tip-Adapter (Zhang et al., ECCV 2022, arXiv 2207.09057), without training.

The features of the support images are the keys of a cache, their labels its values. The logits of a test image gain the values of
similar keys.

    logits = s · f · tᵀ + α · exp(−β (1 − f · keysᵀ)) · values

A grid search on validation images, or in a cross-validation, sets α and β. The artefact holds the keys, which are features of the
training images. Features do not show an image, but someone who has the image can recognise it by its features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from biomedcoop.backbones.base import Backbone
from biomedcoop.data.images.crops import Crops
from biomedcoop.lazy import F, torch
from biomedcoop.methods.base import Abilities, Method, Progress, State, Task, register
from biomedcoop.methods.class_embeddings import template_embeddings, text_state
from biomedcoop.methods.settings import class_template, setting
from biomedcoop.methods.validation import Validation, validations

if TYPE_CHECKING:
    from torch import Tensor

Weights = tuple[float, float]
"""β, the sharpness of the cache, and α, its weight beside the text."""

DEFAULT_WEIGHTS: Weights = (12.0, 50.0)
"""β and α where nothing can be chosen: the best for all datasets together at 1 image per class."""


@dataclass(frozen=True)
class TipAdapterSettings:
    """Settings of the text side and of the search for α and β."""

    template: str = class_template("text of each class")
    grid: int = setting(200, "number of values of α, and of β, in the search", least=1)
    highest: float = setting(
        50.0, "upper end of the search for α and β, which runs from 0.1 in equal steps", above=0.1, most=1000
    )
    logit_scale: float = setting(0.0, "factor s of the text side; 0 for the backbone's own", least=0, most=1000)


@register
class TipAdapter(Method):
    name = "tip-adapter"
    title = "Tip-Adapter"
    paper = "Zhang et al. 2022, arXiv 2207.09057"
    settings_type = TipAdapterSettings
    abilities = Abilities(
        uses_images=True,
        needs_all_views=True,
        chooses="β and α",
        otherwise="β = {:g} and α = {:g}".format(*DEFAULT_WEIGHTS),
    )
    parameters = "nothing"
    learned: ClassVar[tuple[str, ...]] = ()
    crops: ClassVar[Crops] = Crops(smallest=0.5, flip=0.5)

    def fit(
        self, task: Task, settings: TipAdapterSettings, seeds: Sequence[int], progress: Progress | None = None
    ) -> list[State]:
        template = template_embeddings(task.backbone, task.class_names, settings.template)
        scale = settings.logit_scale or task.backbone.logit_scale
        keys, values, weights = self.cache(task, scale * template, settings, seeds, progress)
        return [
            {
                **text_state(task.backbone, template, keys=k, values=v, alpha=torch.tensor(a), beta=torch.tensor(b)),
                "logit_scale": torch.tensor(scale),
            }
            for k, v, (b, a) in zip(keys, values, weights, strict=True)
        ]

    def cache(
        self, task: Task, text: Tensor, settings: Any, seeds: Sequence[int], progress: Progress | None
    ) -> tuple[Tensor, Tensor, list[Weights]]:
        """Keys [R, N, E], values [R, N, C] and weights of R runs, from the scaled class embeddings ``text`` [C, E]."""
        parts = [[(part, *cache_of(part.task)) for part in validations(task, run)] for run in range(len(seeds))]
        return *cache_of(task), [chosen_weights(own, text, settings) for own in parts]

    def logits(self, state: State, features: Tensor, backbone: Backbone) -> Tensor:
        f = F.normalize(features, dim=-1)
        known = state["logit_scale"] * f @ state["class_embeddings"].T
        return known + state["alpha"] * from_cache(f @ state["keys"].T, state["values"], state["beta"])


def cache_of(task: Task) -> tuple[Tensor, Tensor]:
    """Keys [R, N, E], the unit-norm mean of each support image's views, and values [R, N, C], the one-hot labels."""
    r, n, v = len(task.labels), task.n_images, task.views
    keys = F.normalize(task.features.view(r, n, v, -1).mean(2), dim=-1)
    return keys, F.one_hot(task.labels[:, ::v], len(task.class_names)).to(keys.dtype)


def from_cache(affinity: Tensor, values: Tensor, beta: float | Tensor) -> Tensor:
    """Cosines of images and keys [..., B, N] and values [..., N, C] -> what the cache says, [..., B, C]."""
    return (-beta * (1 - affinity)).exp() @ values


def chosen_weights(
    parts: Sequence[tuple[Validation, Tensor, Tensor]], text: Tensor, settings: TipAdapterSettings
) -> Weights:
    """The β and α of the grid with the most right answers in all parts together; in a tie the smallest β, then the smallest α.

    Args:
        parts: fits of one run, with keys [1, N, E] and values [1, N, C]; if there are none, the result is the default.
        text: scaled class embeddings [C, E].
    """
    if not parts:
        return DEFAULT_WEIGHTS
    steps = [0.1 + i * (settings.highest - 0.1) / settings.grid for i in range(settings.grid)]
    right = torch.stack([right_answers(part, keys[0], values[0], text, steps) for part, keys, values in parts]).sum(0)
    beta, alpha = divmod(int(right.flatten().argmax()), settings.grid)
    return steps[beta], steps[alpha]


def right_answers(part: Validation, keys: Tensor, values: Tensor, text: Tensor, steps: Sequence[float]) -> Tensor:
    """Number of right answers for each β and each α of ``steps``, [grid, grid]."""
    f = F.normalize(part.features[0], dim=-1)
    known, affinity = f @ text.T, f @ keys.T
    alphas = torch.tensor(steps, dtype=known.dtype, device=known.device)[:, None, None]
    right = [((known + alphas * from_cache(affinity, values, b)).argmax(-1) == part.labels[0]).sum(1) for b in steps]
    return torch.stack(right)
