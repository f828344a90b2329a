"""Full fine-tuning of the image tower, with the safeguards that few images need.

A linear head is fitted on frozen features first, then head and tower are trained together, so that a random head does not distort
the tower (LP-FT, Kumar et al. 2022, arXiv 2202.10054). The result is θ = θ₀ + α (θ₁ − θ₀), the mean of the tower and head before
and after training, which keeps more of what pretraining knew (WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903, equation 1).
Batch normalisation keeps its running statistics: those of a few images are too uncertain. The method uses no text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.changed import unfrozen, with_tensors
from biomedcoop.lazy import F, torch
from biomedcoop.methods.base import Abilities, State, Task, register
from biomedcoop.methods.linear_probe import CANDIDATES, LinearProbe, LinearProbeSettings
from biomedcoop.methods.settings import setting
from biomedcoop.methods.tower_training import Learner, TowerMethod, TowerSettings, cross_entropies

if TYPE_CHECKING:
    from torch import Tensor

TOWER = "visual."
"""Begins the names of the image tower's tensors."""


@dataclass(frozen=True)
class FineTuneSettings(TowerSettings):
    """Settings of :class:`TowerSettings`, of the head and of the mean of weights."""

    head_lr: float = setting(0.003, "largest learning rate of the linear head", above=0)
    mix: float = setting(0.5, "share α of the trained weights in the mean with those before training", above=0, most=1)


@register
class FineTune(TowerMethod):
    name = "fine-tune"
    title = "Full fine-tuning"
    paper = "Kumar et al. 2022, arXiv 2202.10054; Wortsman et al. 2022, arXiv 2109.01903"
    settings_type = FineTuneSettings
    abilities = Abilities(
        uses_images=True,
        needs_text_tower=False,
        chooses="C of the linear probe that it starts from",
        otherwise=f"C = {CANDIDATES[0]:g}",
        changes_towers=True,
    )
    parameters = "image tower and weights: C × (E + 1)"
    learned = ("weight", "bias", TOWER)

    def learners(
        self, task: Task, settings: FineTuneSettings, seeds: Sequence[int]
    ) -> Sequence[Callable[[], FineTuning]]:
        heads = LinearProbe().fit(task, LinearProbeSettings(), seeds)
        return [partial(FineTuning, task.backbone, head, settings) for head in heads]

    def adapted(self, state: State, backbone: Backbone) -> Backbone:
        return with_tensors(backbone, {name: state[name] for name in tower_names(backbone)})

    def logits(self, state: State, features: Tensor, backbone: Backbone) -> Tensor:
        return F.normalize(features, dim=-1) @ state["weight"].T + state["bias"]


def tower_names(backbone: Backbone) -> list[str]:
    """Names of the parameters of the image tower."""
    return [name for name, _ in backbone.original.towers.named_parameters() if name.startswith(TOWER)]


class FineTuning(Learner):
    """One run.

    Args:
        head: weights [C, E] and biases [C] of the linear probe.
    """

    def __init__(self, backbone: Backbone, head: State, settings: FineTuneSettings) -> None:
        before = dict(backbone.towers.named_parameters())
        self.before = {name: before[name].detach() for name in tower_names(backbone)}
        self.before |= {name: head[name].to(backbone.device) for name in ("weight", "bias")}
        self.trained = {name: tensor.clone().requires_grad_() for name, tensor in self.before.items()}
        tower = {name: tensor for name, tensor in self.trained.items() if name.startswith(TOWER)}
        self.head = [self.trained["weight"], self.trained["bias"]]
        self.backbone = unfrozen(backbone, tower)
        self.groups = [(list(tower.values()), settings.lr), (self.head, settings.head_lr)]
        self.mix = settings.mix

    def losses(self, pixels: Tensor, labels: Tensor, shared: Sequence[Tensor]) -> Tensor:
        features = F.normalize(self.backbone.encode_image(pixels), dim=-1)
        return cross_entropies(F.linear(features, *self.head), labels)

    def state(self) -> State:
        with torch.no_grad():
            return {name: self.before[name].lerp(tensor, self.mix).cpu() for name, tensor in self.trained.items()}
