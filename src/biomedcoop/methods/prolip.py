"""ProLIP (Fahes et al. 2024, arXiv 2410.05270): the last projection of the image tower is trained, and held near where it was.

    logits = s · n(W x + b) · tᵀ;   loss = cross-entropy + λ ‖W − W₀‖²

x is the image feature before the projection W₀, and b the projection's bias, which does not change (BiomedCLIP and CLIP's ViTs have
none). λ is 1/K for K images of each class and ‖·‖ the Frobenius norm; optimiser and steps are those of ``rla``, which applies the
same rule behind the projection. The published code takes another random crop of every image in each step; here every step takes
all rows. Features before the projection are stored like others, so training reads no pixels. The text side does not change, so W
serves new classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.projection import Projection, projection_of
from biomedcoop.methods.base import Abilities, State, register
from biomedcoop.methods.rla import RLA

if TYPE_CHECKING:
    from torch import Tensor


@register
class ProLIP(RLA):
    name = "prolip"
    title = "ProLIP"
    abilities = Abilities(uses_images=True, retargets=True, needs_all_views=True, before_projection=True)
    parameters = "projection: E × width of the image tower"

    def start(self, backbone: Backbone) -> Projection:
        return projection_of(backbone)

    def inputs(self, features: Tensor) -> Tensor:
        return features

    def kept(self, trained: Projection) -> State:
        return {"matrix": trained.weight, "bias": trained.bias}
