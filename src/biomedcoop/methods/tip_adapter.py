"""Tip-Adapter (Zhang et al., ECCV 2022, arXiv 2207.09057), without training.

The features of the support images are the keys of a cache, their labels its values. The logits of a test image gain the values of
similar keys.

    logits = s · f · tᵀ + α · exp(−β (1 − f · keysᵀ)) · values

A grid search on validation images sets α and β. The artefact holds the keys, which are features of the training images. Features do
not show an image, but someone who has the image can recognise it by its features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from biomedcoop.backbones.base import Backbone
from biomedcoop.data.images.crops import Crops
from biomedcoop.lazy import F, torch
from biomedcoop.methods.base import Abilities, Method, Progress, State, Task, register
from biomedcoop.methods.class_embeddings import template_embeddings, text_state
from biomedcoop.methods.settings import class_template, setting

if TYPE_CHECKING:
    from torch import Tensor


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
    abilities = Abilities(uses_images=True, needs_validation=True, needs_all_views=True)
    parameters = "nothing; α and β are chosen"
    crops: ClassVar[Crops] = Crops(smallest=0.5, flip=0.5)

    def fit(
        self, task: Task, settings: TipAdapterSettings, seeds: Sequence[int], progress: Progress | None = None
    ) -> list[State]:
        with torch.no_grad():
            keys, values = cache_of(task)
            return cached_states(task, settings, keys, values)

    def logits(self, state: State, features: Tensor, backbone: Backbone) -> Tensor:
        f = F.normalize(features, dim=-1)
        known = state["logit_scale"] * f @ state["class_embeddings"].T
        return known + state["alpha"] * from_cache(f @ state["keys"].T, state["values"], float(state["beta"]))


def cache_of(task: Task) -> tuple[Tensor, Tensor]:
    """Keys [R, N, E], the unit-norm mean of each support image's views, and values [R, N, C], the one-hot labels."""
    r, n, v = len(task.labels), task.n_images, task.views
    keys = F.normalize(task.features.view(r, n, v, -1).mean(2), dim=-1)
    return keys, F.one_hot(task.labels[:, ::v], len(task.class_names)).to(keys.dtype)


def from_cache(affinity: Tensor, values: Tensor, beta: float | Tensor) -> Tensor:
    """Cosines of images and keys [..., B, N] and values [..., N, C] -> what the cache says, [..., B, C]."""
    return (-beta * (1 - affinity)).exp() @ values


def cached_states(task: Task, settings: TipAdapterSettings, keys: Tensor, values: Tensor) -> list[State]:
    """The state of each run, with the best α and β on its validation images."""
    assert task.val_features is not None
    assert task.val_labels is not None
    template = template_embeddings(task.backbone, task.class_names, settings.template)
    scale = torch.tensor(settings.logit_scale or task.backbone.logit_scale)
    states: list[State] = []
    for key, value, f, y in zip(keys, values, F.normalize(task.val_features, dim=-1), task.val_labels, strict=True):
        beta, alpha = search(scale * f @ template.T, f @ key.T, value, y, settings)
        chosen = {"keys": key, "values": value, "alpha": torch.tensor(alpha), "beta": torch.tensor(beta)}
        states.append({**text_state(task.backbone, template, **chosen), "logit_scale": scale})
    return states


def search(
    known: Tensor, affinity: Tensor, values: Tensor, labels: Tensor, settings: TipAdapterSettings
) -> tuple[float, float]:
    """The β and α of the grid with the most correct validation images; in a tie the smallest β, then the smallest α.

    Args:
        known: logits of the text side [V, C].
        affinity: cosines of the validation images and the keys [V, N].
        values: one-hot labels of the keys [N, C].
        labels: classes of the validation images [V].
    """
    steps = [0.1 + i * (settings.highest - 0.1) / settings.grid for i in range(settings.grid)]
    alphas = torch.tensor(steps, dtype=known.dtype, device=known.device)[:, None, None]
    right = [((known + alphas * from_cache(affinity, values, b)).argmax(-1) == labels).sum(1) for b in steps]
    beta, alpha = divmod(int(torch.stack(right).flatten().argmax()), settings.grid)
    return steps[beta], steps[alpha]
