"""SS-Text (Silva-Rodríguez et al. 2025, arXiv 2506.06076 and 2506.17500): prototypes of images and text, in closed form.

    w_c = s / (N λ) · Σ_{i in c} f_i + t_c,  λ = 1 / N;  logits = s · f · n(w)ᵀ

The prototype w_c of a class is the minimum of a linear loss on the N labelled images with a quadratic penalty, of strength λ, for
leaving the text t_c. As λ = 1 / N, each image adds s · f_i, and the text weighs less the more images there are. With few
images the factor s at f_i may be too large for a backbone; ``image_weight`` replaces it.

The published code bounds λ below by 0.001, so that from 1,000 images on the text keeps its weight; ``least_penalty`` repeats it.
The prototype of a class without an image is its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from biomedcoop.lazy import F
from biomedcoop.methods.base import Abilities, Method, Progress, State, Task, register
from biomedcoop.methods.class_embeddings import template_embeddings, text_state
from biomedcoop.methods.settings import class_template, setting
from biomedcoop.methods.tip_adapter import cache_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SSTextSettings:
    """Settings of the text and of its weight beside the images."""

    template: str = class_template("text of each class")
    image_weight: float = setting(
        0.0, "weight of an image beside the text, which weighs 1; 0 for the backbone's logit scale", least=0, most=1e6
    )
    least_penalty: float = setting(
        0.0, "lower bound of the penalty λ for leaving the text; the published code has 0.001", least=0, most=1
    )


@register
class SSText(Method):
    name = "ss-text"
    title = "SS-Text"
    paper = "Silva-Rodríguez et al. 2025, arXiv 2506.06076"
    settings_type = SSTextSettings
    abilities = Abilities(uses_images=True, needs_all_views=True, closed_form=True)
    parameters = "nothing"
    learned: ClassVar[tuple[str, ...]] = ()

    def fit(
        self, task: Task, settings: SSTextSettings, seeds: Sequence[int], progress: Progress | None = None
    ) -> list[State]:
        text = template_embeddings(task.backbone, task.class_names, settings.template)
        weight = settings.image_weight or task.backbone.logit_scale
        prototypes = self.prototypes(*cache_of(task), text, weight, settings)
        return [text_state(task.backbone, w) for w in prototypes]

    def prototypes(self, f: Tensor, one_hot: Tensor, text: Tensor, weight: float, settings: SSTextSettings) -> Tensor:
        """Prototypes [R, C, E] before they are scaled to unit norm.

        Args:
            f: unit-norm image features [R, N, E].
            one_hot: their labels [R, N, C].
            text: text of each class, [C, E].
            weight: weight of an image beside the text.
        """
        n = f.shape[1]
        penalty = max(1 / n, settings.least_penalty)
        return weight / (n * penalty) * class_sums(f, one_hot) + text


def class_sums(f: Tensor, one_hot: Tensor) -> Tensor:
    """Sums [R, C, E] of the features [R, N, E] of each class, from labels or shares [R, N, C]."""
    return one_hot.transpose(1, 2) @ f


def unit(w: Tensor) -> Tensor:
    """Rows of unit norm."""
    return F.normalize(w, dim=-1)
