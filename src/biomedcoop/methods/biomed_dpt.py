"""Biomed-DPT (Peng et al. 2025, arXiv 2505.05189): a context that starts as words about the images and stays near the sentences.

    loss = CE + λ · mean |t_c − m_c| + κ · KL(p_zero-shot ‖ p) + μ · mean |t_c − t⁰_c|

t_c is the class embedding, m_c the unit-norm mean of the class's unit-norm sentence embeddings, t⁰_c the embedding of a minimal
template. Zero-shot classifies by m_c. All sentences take part; none is pruned. The prompt is "a {modality} photo of a {class} in
the {organ}."; what is not known is left out.

The published code puts half of the context behind the first token of the name, which cuts names of more tokens. Here the whole name
stands behind the context, as in BiomedCoOp; class_position=middle puts it in the middle. The paper's zero vectors in the image
tower are a form of the backbone: ``--backbone biomedclip+zeroed-patches``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from biomedcoop.lazy import F, torch
from biomedcoop.methods.base import Abilities, Task, register
from biomedcoop.methods.calib_prompt import label_loss
from biomedcoop.methods.class_embeddings import template_embeddings
from biomedcoop.methods.context import ContextMethod, ContextSettings, Embeddings
from biomedcoop.methods.settings import class_template, setting
from biomedcoop.methods.training import Losses, batch_of

if TYPE_CHECKING:
    from torch import Tensor

MODALITY, ORGAN = "{modality}", "{organ}"


@dataclass(frozen=True)
class BiomedDPTSettings(ContextSettings):
    """Settings of :class:`ContextSettings` and of the three distances."""

    n_context: int = 0
    context_words: str = "a {modality} photo of a"
    class_suffix: str = "in the {organ}"
    batch_size: int = 4
    lr: float = 0.0025
    sentence_weight: float = setting(12.5, "λ, weight of the distance to the sentences' mean", least=0)
    kl_weight: float = setting(0.25, "κ, weight of the divergence from zero-shot", least=0)
    template_weight: float = setting(0.3, "μ, weight of the distance to the template", least=0)
    template: str = class_template("minimal text that the learned prompt stays near to")
    n_sentences: int = setting(50, "maximum number of sentences per class; the first ones are used", least=1)


@register
class BiomedDPT(ContextMethod):
    name = "biomed-dpt"
    title = "Biomed-DPT"
    paper = "Peng et al. 2025, arXiv 2505.05189"
    settings_type = BiomedDPTSettings
    abilities = Abilities(uses_images=True, uses_sentences=True, retargets=True)

    def settings(
        self,
        single: Mapping[str, Any],
        recipe: str = "paper",
        dataset: str | None = None,
        modality: str | None = None,
        organ: str | None = None,
    ) -> BiomedDPTSettings:
        """The settings with the words for this modality and organ; an unknown modality leaves its word out, an unknown organ the
        whole suffix that names it.
        """
        found: BiomedDPTSettings = super().settings(single, recipe, dataset, modality, organ)
        words = " ".join(found.context_words.replace(MODALITY, modality or "").split())
        suffix = "" if ORGAN in found.class_suffix and organ is None else found.class_suffix.replace(ORGAN, organ or "")
        return dataclasses.replace(found, context_words=words, class_suffix=suffix)

    def losses(self, task: Task, settings: BiomedDPTSettings, embeddings: Embeddings) -> Losses:
        """Terms: CE, λ · distance to the sentences, κ · divergence, μ · distance to the template."""
        assert task.sentence_features is not None
        batch, scale = batch_of(task), task.backbone.logit_scale
        sentences = F.normalize(task.sentence_features[:, : settings.n_sentences], dim=-1)  # [C, P, E]
        mean = F.normalize(sentences.mean(1), dim=-1)  # [C, E]
        template = template_embeddings(task.backbone, task.class_names, settings.template)  # [C, E]

        def losses(index: Tensor) -> Tensor:
            f, y = batch(index)  # [R, B, E], [R, B]
            t = embeddings()  # [R, C, E]
            log_p = (scale * f @ t.transpose(1, 2)).log_softmax(-1)  # [R, B, C]
            log_q = (scale * f @ mean.T).log_softmax(-1)
            # divided by B·C, as BiomedCoOp's distillation is
            divergence = (log_q.exp() * (log_q - log_p)).mean((1, 2))
            terms = [
                label_loss(log_p, y, t, settings),
                settings.sentence_weight * (t - mean).abs().mean((1, 2)),
                settings.kl_weight * divergence,
                settings.template_weight * (t - template).abs().mean((1, 2)),
            ]
            return torch.stack(terms, dim=1)

        return losses
