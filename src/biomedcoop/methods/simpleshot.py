"""SimpleShot (Wang et al. 2019, arXiv 1911.04623): the nearest class mean after centring and unit norm (CL2N). It uses no text.

    x = n(f − m);  w_c = mean of x over the images of class c;  logits = −s ‖x − w_c‖² / 2, without the term that all classes share

Here f has unit norm, and m is the mean of the class means of the labelled images; the paper takes raw features, and m from
images of other classes. The paper gives no probabilities: s changes them and no answer. A class without an
image is never the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from biomedcoop.backbones.base import Backbone
from biomedcoop.lazy import F
from biomedcoop.methods.base import Abilities, Method, Progress, State, Task, register
from biomedcoop.methods.linear_probe import NEVER
from biomedcoop.methods.settings import setting
from biomedcoop.methods.ss_text import class_sums
from biomedcoop.methods.tip_adapter import cache_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SimpleShotSettings:
    """The scale of the probabilities."""

    scale: float = setting(
        10.0, "factor s of the squared distances; larger makes probabilities surer", above=0, most=1000
    )


@register
class SimpleShot(Method):
    name = "simpleshot"
    title = "SimpleShot"
    paper = "Wang et al. 2019, arXiv 1911.04623"
    settings_type = SimpleShotSettings
    abilities = Abilities(uses_images=True, needs_all_views=True, needs_text_tower=False, closed_form=True)
    parameters = "nothing"
    learned: ClassVar[tuple[str, ...]] = ()

    def fit(
        self, task: Task, settings: SimpleShotSettings, seeds: Sequence[int], progress: Progress | None = None
    ) -> list[State]:
        f, one_hot = cache_of(task)
        counts = one_hot.sum(1)[..., None]  # [R, C, 1]
        there = counts > 0
        means = class_sums(f, one_hot) / counts.clamp(min=1)
        centre = means.sum(1, keepdim=True) / there.sum(1, keepdim=True)
        w = class_sums(F.normalize(f - centre, dim=-1), one_hot) / counts.clamp(min=1)
        bias = (-settings.scale / 2 * w.square().sum(-1)).masked_fill(~there[..., 0], NEVER)
        return [
            {"weight": settings.scale * w_r, "bias": b_r, "centre": c_r}
            for w_r, b_r, c_r in zip(w.cpu(), bias.cpu(), centre.cpu(), strict=True)
        ]

    def logits(self, state: State, features: Tensor, backbone: Backbone) -> Tensor:
        x = F.normalize(F.normalize(features, dim=-1) - state["centre"], dim=-1)
        return x @ state["weight"].T + state["bias"]
