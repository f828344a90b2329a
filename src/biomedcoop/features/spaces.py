"""The spaces of the feature store: all that decides the bits of a feature, apart from the image or text itself."""

from __future__ import annotations

from collections.abc import Mapping

from biomedcoop.backbones.base import Backbone
from biomedcoop.data.images.crops import Crops, Resize
from biomedcoop.features.passes import image_batch

IMAGE_VIEWS: Mapping[Resize, str] = {
    "shortest": "centre: short edge bicubic, centre crop, 2",
    "squash": "whole: squashed bicubic, 1",
}
"""Name and version of each transform; a change of pixels needs a new version."""

TEXT_BATCH = 16
"""Texts per pass of the text tower."""

TEXT_STEP = 16
"""Texts are padded to the next multiple of this number of tokens."""

Space = dict[str, str | int]


def image_space(backbone: Backbone) -> Space:
    """Space of the features of centre crops, or of whole images where the backbone squashes them."""
    return _space(backbone, IMAGE_VIEWS[backbone.resize], str(image_batch(backbone)), backbone.precision)


def view_space(backbone: Backbone, crops: Crops) -> Space:
    """Space of the features of random crops."""
    view = f"random crop, bicubic: area from {crops.smallest:g}, flip {crops.flip:g}, 2"
    return _space(backbone, view, str(image_batch(backbone)), backbone.precision)


def text_space(backbone: Backbone) -> Space:
    """Space of the features of texts."""
    return _space(backbone, "text", f"{TEXT_BATCH} x {TEXT_STEP}", str(backbone.dtype).removeprefix("torch."))


def _space(backbone: Backbone, view: str, batch: str, dtype: str) -> Space:
    return {
        "fingerprint": backbone.fingerprint,
        "view": view,
        "batch": batch,
        "dtype": dtype,
        "width": backbone.embed_dim,
    }
