"""A plug-in of the tests: a closed form without a single setting. The class is that of the nearest mean of the support images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from biomedcoop.methods import Abilities, Method, Progress, State, Task, register


@dataclass(frozen=True)
class NoSettings:
    """Nothing can be set."""


@register
class NearestMean(Method):
    name = "nearest-mean"
    title = "Nearest mean"
    paper = "Snell et al. 2017, arXiv 1703.05175"
    settings_type = NoSettings
    abilities = Abilities(uses_images=True, needs_all_views=True)
    parameters = "nothing: C × E means"

    def fit(
        self, task: Task, settings: NoSettings, seeds: Sequence[int], progress: Progress | None = None
    ) -> list[State]:
        features = F.normalize(task.features, dim=-1)  # [R, N, E]
        one_hot = F.one_hot(task.labels, len(task.class_names)).to(features.dtype)  # [R, N, C]
        means = F.normalize(one_hot.transpose(1, 2) @ features, dim=-1)  # [R, C, E]
        scale = torch.tensor(task.backbone.logit_scale)
        return [{"class_embeddings": own, "logit_scale": scale} for own in means]
