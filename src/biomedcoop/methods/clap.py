"""CLAP (Silva-Rodríguez et al., CVPR 2024, arXiv 2312.12730): ZS-LP whose weights are held near the text embeddings.

    loss = cross-entropy + mean over c of λ_c ‖w_c − t_c‖²;   λ_c = mean zero-shot probability of class c on its training images

So the words of a class hold its weights the more, the better they know its images. The published variants of λ, by their names:
"balanced" takes 1 for every class, "corrected" λ_c C / Σ λ, "constant" the mean of λ, and "adaptative" updates λ after every epoch
with ρ, which starts at 0, and d_c = ‖w_c − t_c‖²:

    λ_c ← max(0, λ_c + ρ_c d_c), then ρ_c ← d_c

The authors' medical code (arXiv 2506.06076) has one λ for all classes, since its product of λ and distances mixes them: that is
"constant", without warm-up. The λ of a class without a training image is the mean of those of the others. See ``zs_lp.py`` for the
training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from biomedcoop.methods.base import register
from biomedcoop.methods.settings import setting
from biomedcoop.methods.zs_lp import ZSLP, Probe, ZSLPSettings

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class CLAPSettings(ZSLPSettings):
    """Settings of :class:`ZSLPSettings`, and of the penalty."""

    variant: str = setting(
        "class",
        "λ of the penalty: by class, or a published variant",
        choices=("class", "balanced", "corrected", "constant", "adaptative"),
    )


@register
class CLAP(ZSLP):
    name = "clap"
    title = "CLAP"
    settings_type = CLAPSettings

    def probe(self, f: Tensor, labels: Tensor, text: Tensor, scale: float, settings: CLAPSettings) -> HeldProbe:  # type: ignore[override]
        return HeldProbe(f, labels, text, scale, settings.variant)


class HeldProbe(Probe):
    """A probe with the penalty.

    Args:
        variant: see :class:`CLAPSettings`; for the others see :class:`Probe`.

    Attributes:
        penalties: λ, [R, C].
    """

    def __init__(self, f: Tensor, labels: Tensor, text: Tensor, scale: float, variant: str) -> None:
        super().__init__(f, labels, text, scale)
        counts = self.one_hot.sum(1)  # [R, C]
        known = (self.log_probabilities(text).exp() * self.one_hot).sum(1) / counts.clamp(min=1)
        mean = known.sum(1, keepdim=True) / (counts > 0).sum(1, keepdim=True)
        by_class = known.where(counts > 0, mean)
        self.penalties = {
            "balanced": by_class.new_ones(by_class.shape),
            "corrected": by_class * by_class.shape[1] / by_class.sum(1, keepdim=True),
            "constant": by_class.mean(1, keepdim=True).expand_as(by_class),
        }.get(variant, by_class)
        self.adaptive, self.steepness = variant == "adaptative", by_class.new_zeros(by_class.shape)

    def pull(self) -> tuple[Tensor, Tensor]:
        away = self.weight - self.text
        held = self.penalties / len(self.text)
        return (held * away.square().sum(-1)).sum(1), 2 * held[..., None] * away

    def after_epoch(self) -> None:
        if self.adaptive:
            distance = (self.weight - self.text).square().sum(-1)
            self.penalties = (self.penalties + self.steepness * distance).clamp(min=0)
            self.steepness = distance
