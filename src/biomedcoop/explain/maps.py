"""The saliency maps by name, and the maps of centre crops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from biomedcoop.classifier.classifier import Classifier
from biomedcoop.errors import UserError, nearest
from biomedcoop.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

Floats = npt.NDArray[np.float32]

DEFAULT_MAP = "gscorecam"


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


def layer_for(classifier: Classifier, map: str, layer: str | None = None) -> str | None:
    """The layer that a map is made from: by default the backbone's last spatial map; None for a map of all blocks.

    Raises:
        UserError: the name of the map is unknown, the image tower cannot give it, or it takes no layer.
    """
    if map not in MAPS:
        raise UserError(f"no map '{map}'; {nearest(map, MAPS)}")
    backbone = classifier.backbone
    possible = maps_for(backbone.tower_kind)
    if map not in possible:
        raise UserError(
            f"{MAPS[map].title} needs a vision transformer, and the image tower of {backbone.name} is of the kind "
            f"{backbone.tower_kind}; it gives {', '.join(possible)}"
        )
    if MAPS[map].needs == "map":
        return layer or backbone.map_layer
    if layer is not None:
        raise UserError(f"{MAPS[map].title} is made from all blocks and takes no layer; leave the layer out")
    return None


def crop_maps(
    classifier: Classifier,
    crops: npt.NDArray[np.uint8],
    classes: npt.NDArray[np.int64],
    map: str = DEFAULT_MAP,
    layer: str | None = None,
) -> Floats:
    """Saliency maps of centre crops, as the image tower sees them.

    Args:
        crops: uint8 [B, S, S, 3]; S is the backbone's ``image_size``.
        classes: class that each map explains, int64 [B].
        map: a name in :data:`MAPS`.
        layer: layer of the image tower that the map is made from; by default the last with a spatial map.

    Returns:
        float32 [B, S, S], at least 0. The largest value of each map is 1; a map is 0 everywhere if nothing speaks for the class.

    Raises:
        UserError: see :func:`layer_for`; or the layer does not exist or gives no map, or no gradients pass (int8).

    Example:
        >>> import biomedcoop as bc
        >>> classifier = bc.fit(bc.load_dataset("simulated:breast-ultrasound?train=1&val=0&test=1"), method="zero-shot")
        >>> size = classifier.backbone.image_size
        >>> crops = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
        >>> crop_maps(classifier, crops, np.array([0, 2]), "grad-cam").shape == (2, size, size)
        True
    """
    from biomedcoop.explain.channels import resized
    from biomedcoop.features.passes import image_batch

    chosen, compute = layer_for(classifier, map, layer), MAPS[map].compute()
    backbone = classifier.backbone
    size, batch = backbone.image_size, image_batch(backbone)
    found = np.zeros((len(crops), size, size), dtype=np.float32)
    for start in range(0, len(crops), batch):
        part = slice(start, start + batch)
        pixels = backbone.normalize(np.ascontiguousarray(crops[part]))
        maps = compute(classifier, pixels, torch.from_numpy(classes[part]).to(pixels.device), chosen or "")
        large = resized(maps.detach(), size)
        highest = large.amax((1, 2), keepdim=True)
        found[part] = torch.where(highest > 0, large / highest, 0.0).cpu().numpy()
    return found
