"""The kinds of saliency maps, by name; needs neither torch nor numpy, so that a help text is quick."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from biomedcoop.classifier.classifier import Classifier

DEFAULT_MAP = "grad-cam"
"""Quick, and it passed every check of ``docs/results/saliency.md``."""

MOST_CHECKED = 24
"""Images on which maps are checked unless another number is asked for."""


@dataclass(frozen=True)
class SaliencyMethod:
    """One kind of saliency map.

    Attributes:
        name: name for the user.
        title: name in its paper.
        paper: reference of the paper.
        needs: what it is made from: "map", a spatial map of any image tower, or "attention", the blocks of a vision transformer.
        class_specific: whether the map depends on the class.
        function: name of the function in ``explain/channels.py`` or ``explain/attention.py``.
    """

    name: str
    title: str
    paper: str
    needs: str
    class_specific: bool
    function: str

    def compute(self) -> Callable[[Classifier, Tensor, Tensor, str], Tensor]:
        """The function: (classifier, normalised pixels [B, 3, S, S], classes int64 [B], layer) -> maps [B, h, w]."""
        from biomedcoop.explain import attention, channels  # torch, which the names need not load

        found: Callable[[Classifier, Tensor, Tensor, str], Tensor]
        found = getattr(channels if self.needs == "map" else attention, self.function)
        return found


MAPS: Mapping[str, SaliencyMethod] = MappingProxyType(
    {
        method.name: method
        for method in (
            SaliencyMethod("gscorecam", "gScoreCAM", "Chen et al. 2022, ACCV", "map", True, "gscorecam"),
            SaliencyMethod("grad-cam", "Grad-CAM", "Selvaraju et al. 2017, arXiv 1610.02391", "map", True, "grad_cam"),
            SaliencyMethod("score-cam", "Score-CAM", "Wang et al. 2020, arXiv 1910.01279", "map", True, "score_cam"),
            SaliencyMethod(
                "attention-rollout",
                "Attention rollout",
                "Abnar & Zuidema 2020, arXiv 2005.00928",
                "attention",
                False,
                "attention_rollout",
            ),
            SaliencyMethod(
                "gradient-attention",
                "Gradient × attention",
                "Chefer et al. 2021, arXiv 2103.15679",
                "attention",
                True,
                "gradient_attention",
            ),
        )
    }
)


def maps_for(tower_kind: str) -> list[str]:
    """Names of the maps that an image tower can give; see :attr:`biomedcoop.backbones.base.Backbone.tower_kind`.

    Example:
        >>> maps_for("resnet")
        ['gscorecam', 'grad-cam', 'score-cam']
    """
    return [name for name, method in MAPS.items() if method.needs == "map" or tower_kind == "vit"]
