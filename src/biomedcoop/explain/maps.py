"""The saliency maps of centre crops, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from biomedcoop.backbones.base import exact_convolutions
from biomedcoop.classifier.classifier import Classifier
from biomedcoop.errors import UserError, nearest
from biomedcoop.explain.kinds import DEFAULT_MAP, MAPS, maps_for
from biomedcoop.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

Floats = npt.NDArray[np.float32]


def layer_for(classifier: Classifier, map: str, layer: str | None = None) -> str | None:
    """The layer that a map is made from: by default the backbone's ``map_layer``; None for a map of all blocks.

    Raises:
        UserError: the name of the map is unknown, the image tower cannot give it, it takes no layer, or it needs one and the tower
            has none by default.
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
        if not (layer or backbone.map_layer):
            raise UserError(
                f"the image tower of {backbone.name} ({backbone.tower_kind}) has no layer that is known to give a map of places; "
                "name one with --layer, or choose another backbone"
            )
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
        map: a name in :data:`biomedcoop.explain.kinds.MAPS`.
        layer: layer of the image tower that the map is made from; by default the backbone's ``map_layer``.

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
    from biomedcoop.features.parallel import passes_on_every_core
    from biomedcoop.features.passes import image_batch

    chosen, compute = layer_for(classifier, map, layer), MAPS[map].compute()
    backbone = classifier.backbone
    size, batch = backbone.image_size, image_batch(backbone)
    parts = [slice(start, start + batch) for start in range(0, len(crops), batch)]

    def maps_of(part: slice) -> Tensor:
        pixels = backbone.normalize(np.ascontiguousarray(crops[part]))
        with exact_convolutions(backbone.device):
            maps = compute(classifier, pixels, torch.from_numpy(classes[part]).to(pixels.device), chosen or "")
        large = resized(maps.detach(), size)
        highest = large.amax((1, 2), keepdim=True)
        return torch.where(highest > 0, large / highest, 0.0).cpu()

    # one part alone has every core for its operations
    passes = (
        passes_on_every_core(maps_of, parts, backbone.device) if len(parts) > 1 else (maps_of(part) for part in parts)
    )
    return np.concatenate([np.zeros((0, size, size), dtype=np.float32), *(maps.numpy() for maps in passes)])
