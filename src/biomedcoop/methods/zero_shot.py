"""Zero-shot classification with one template (CLIP, Radford et al. 2021, arXiv 2103.00020).

t_c = n(enc("a photo of a {name}.")); logits = s · f · tᵀ. Nothing is trained and no labelled image is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from biomedcoop.methods.base import Abilities, Method, Progress, State, Task, register, require, text_state


@dataclass(frozen=True)
class ZeroShotSettings:
    """
    Attributes:
        template: text with ``{}`` where the class name goes.
    """

    template: str = "a photo of a {}."


@register
class ZeroShot(Method):
    name = "zero-shot"
    title = "Zero-shot"
    paper = "Radford et al. 2021, arXiv 2103.00020"
    settings_type = ZeroShotSettings
    abilities = Abilities(trains=False, retargets=True)

    def check(self, settings: ZeroShotSettings) -> None:
        require(
            settings.template.count("{}") == 1, self.name, "template", repr(settings.template), "a text with one {}"
        )

    @torch.no_grad()
    def fit(
        self, task: Task, settings: ZeroShotSettings, seeds: Sequence[int], progress: Progress | None = None
    ) -> list[State]:
        texts = [settings.template.replace("{}", name) for name in task.class_names]
        state = text_state(task.backbone, task.backbone.encode_text(texts))
        return [dict(state) for _ in seeds]
