"""Zero-shot classification with one template (CLIP, Radford et al. 2021, arXiv 2103.00020).

t_c = n(enc("a photo of a {name}.")); logits = s · f · tᵀ. Nothing is trained and no labelled image is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from biomedcoop.methods.base import Abilities, Method, Progress, State, Task, register
from biomedcoop.methods.class_embeddings import template_embeddings, text_state
from biomedcoop.methods.settings import class_template


@dataclass(frozen=True)
class ZeroShotSettings:
    """Settings of zero-shot classification: the template."""

    template: str = class_template("text of each class")


@register
class ZeroShot(Method):
    name = "zero-shot"
    title = "Zero-shot"
    paper = "Radford et al. 2021, arXiv 2103.00020"
    settings_type = ZeroShotSettings
    abilities = Abilities(uses_images=False, retargets=True)
    parameters = "nothing"
    learned = ()

    def fit(
        self, task: Task, settings: ZeroShotSettings, seeds: Sequence[int], progress: Progress | None = None
    ) -> list[State]:
        state = text_state(task.backbone, template_embeddings(task.backbone, task.class_names, settings.template))
        return [dict(state) for _ in seeds]

    def retarget(self, state: State, task: Task, settings: ZeroShotSettings) -> State:
        return self.fit(task, settings, [0])[0]
