"""Zero-shot classification with an ensemble of sentences per class (prompt ensembling, Radford et al. 2021, arXiv 2103.00020).

t_c = n(mean_i n(enc(sentence_{c,i}))); logits = s · f · tᵀ. Nothing is trained and no labelled image is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from biomedcoop.lazy import F, torch
from biomedcoop.methods.base import Abilities, Method, Progress, State, Task, register
from biomedcoop.methods.class_embeddings import text_state
from biomedcoop.methods.settings import setting


@dataclass(frozen=True)
class ZeroShotEnsembleSettings:
    """Settings of the sentence ensemble: the number of sentences."""

    n_sentences: int = setting(50, "maximum number of sentences per class; the first ones are used", least=1)


@register
class ZeroShotEnsemble(Method):
    name = "zero-shot-ensemble"
    title = "Zero-shot, sentence ensemble"
    paper = "Radford et al. 2021, arXiv 2103.00020"
    settings_type = ZeroShotEnsembleSettings
    abilities = Abilities(uses_images=False, uses_sentences=True, retargets=True)
    parameters = "nothing"
    learned = ()

    def fit(
        self, task: Task, settings: ZeroShotEnsembleSettings, seeds: Sequence[int], progress: Progress | None = None
    ) -> list[State]:
        assert task.sentence_features is not None
        with torch.no_grad():
            unit = F.normalize(task.sentence_features[:, : settings.n_sentences], dim=-1)  # [C, P, E]
            state = text_state(task.backbone, unit.mean(1))
        return [dict(state) for _ in seeds]

    def retarget(self, state: State, task: Task, settings: ZeroShotEnsembleSettings) -> State:
        return self.fit(task, settings, [0])[0]
