"""CoOp: context optimisation (Zhou et al., IJCV 2022, arXiv 2109.01134).

Context vectors in front of the class name are learned with the cross-entropy of the logits s · f · tᵀ.
"""

from __future__ import annotations

from typing import Any

from biomedcoop.lazy import torch
from biomedcoop.methods.base import Abilities, Task, register
from biomedcoop.methods.calib_prompt import label_loss
from biomedcoop.methods.context import ContextMethod, ContextSettings, Embeddings
from biomedcoop.methods.training import Losses, batch_of


@register
class CoOp(ContextMethod):
    name = "coop"
    title = "CoOp"
    paper = "Zhou et al. 2022, arXiv 2109.01134"
    settings_type = ContextSettings
    abilities = Abilities(uses_images=True, retargets=True)

    def losses(self, task: Task, settings: Any, embeddings: Embeddings) -> Losses:
        batch, scale = batch_of(task), task.backbone.logit_scale

        def losses(index: torch.Tensor) -> torch.Tensor:
            f, y = batch(index)  # [R, B, E], [R, B]
            t = embeddings()  # [R, C, E]
            return label_loss((scale * f @ t.transpose(1, 2)).log_softmax(-1), y, t, settings)[:, None]

        return losses
