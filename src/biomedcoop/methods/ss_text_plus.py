"""SS-Text+ (Silva-Rodríguez et al. 2025, arXiv 2506.17500): SS-Text that keeps rare classes near their text and classes apart.

    w_c = s / (N λ_c) · Σ_{i in c} f_i + t_c,  λ_c = 1 / n_c;  w_c ← w_c − n(2 w_c − mean_k w_k);  logits = s · f · n(w)ᵀ

Each of the n_c images of a class weighs s n_c / N, so a class with few images stays near its text. The second step takes
a vector of unit length from each prototype; all are computed from the prototypes before any of them moves.

The published code bounds λ_c below by 0.001 (``least_penalty``). The prototype of a class without an image is its text before the
second step, which moves it too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from biomedcoop.methods.base import register
from biomedcoop.methods.ss_text import SSText, SSTextSettings, class_sums, unit

if TYPE_CHECKING:
    from torch import Tensor


@register
class SSTextPlus(SSText):
    name = "ss-text+"
    title = "SS-Text+"
    paper = "Silva-Rodríguez et al. 2025, arXiv 2506.17500"

    def prototypes(self, f: Tensor, one_hot: Tensor, text: Tensor, weight: float, settings: SSTextSettings) -> Tensor:
        penalty = (1 / one_hot.sum(1).clamp(min=1)).clamp(min=settings.least_penalty)  # [R, C]
        w = weight / (f.shape[1] * penalty)[..., None] * class_sums(f, one_hot) + text
        return w - unit(2 * w - w.mean(1, keepdim=True))
