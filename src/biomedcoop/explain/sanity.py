"""Sanity checks of maps (Adebayo et al. 2018, "Sanity Checks for Saliency Maps", arXiv 1810.03292).

A map that explains a classifier depends on what the classifier has learned. So it must change when the weights of the image tower
are randomised, when it is asked for another class, and when the class is a nonsense text. A map that does not shows edges or the
middle of the image.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.clip_resnet import BatchNorm
from biomedcoop.classifier.classifier import Classifier
from biomedcoop.errors import UserError
from biomedcoop.methods import get_method
from biomedcoop.methods.class_embeddings import template_embeddings

Floats = npt.NDArray[np.float32]
Crops = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

Maps = Callable[[Classifier, Crops, Labels], Floats]
"""Classifier, crops uint8 [B, S, S, 3] and a class for each, int64 [B] -> maps [B, S, S]."""

THRESHOLD = 0.5
"""Largest mean rank correlation of maps that counts as a change: half-way between an unchanged map (1) and an unrelated one (0)."""

NONSENSE = (
    "colourless green ideas",
    "a quarrel of umbrellas",
    "the taste of tuesday",
    "wooden arithmetic",
    "slow thunder soup",
)


def randomised(backbone: Backbone, crops: Crops, seed: int = 0, share: float = 1.0) -> Backbone:
    """The same backbone with random weights in the last layers of its image tower.

    The values of each tensor are put into random order, which keeps their distribution; then batch normalisation takes its
    statistics from ``crops``, because those of the trained weights would let the signal vanish. Texts are encoded as before.

    Args:
        backbone: stays as it is.
        crops: uint8 [B, S, S, 3], for the statistics of batch normalisation.
        seed: of the random order.
        share: share of the layers that is randomised, from the output on (cascading randomisation); 1 is the whole tower.

    Raises:
        UserError: the image tower computes in int8.
    """
    if backbone.precision == "int8":
        raise UserError(f"the weights of {backbone.name} in int8 cannot be randomised; load it with precision float32")
    named = backbone.towers.named_parameters()
    kept: dict[int, object] = {id(tensor): tensor for name, tensor in named if not name.startswith("visual.")}
    if hasattr(backbone, "tokenizer"):
        kept[id(backbone.tokenizer)] = backbone.tokenizer
    other = copy.deepcopy(backbone, kept)
    layers = [
        module for module in other.image_tower.modules() if next(module.parameters(recurse=False), None) is not None
    ]
    layers = layers[len(layers) - max(1, round(share * len(layers))) :]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in (parameter for layer in layers for parameter in layer.parameters(recurse=False)):
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    handles = [layer.register_forward_pre_hook(_take_statistics) for layer in layers if isinstance(layer, BatchNorm)]
    try:
        with torch.no_grad():
            other.encode_image(other.normalize(crops))
    finally:
        for handle in handles:
            handle.remove()
    other.fingerprint = f"{backbone.fingerprint}-randomised-{seed}-{share:g}"
    return other


def _take_statistics(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    (x,) = inputs
    norm.running_mean, norm.running_var = x.mean((0, 2, 3)), x.var((0, 2, 3))


def with_nonsense(classifier: Classifier) -> Classifier | None:
    """The same classifier with nonsense texts in place of its classes; None if it learns its classes from images."""
    state, backbone = classifier.state, classifier.backbone.original
    if "class_embeddings" not in state or not get_method(classifier.method).abilities.retargets:
        return None
    texts = [NONSENSE[place % len(NONSENSE)] for place in range(len(classifier.class_names))]
    embeddings = template_embeddings(backbone, texts, "{}").float().cpu()
    return replace(classifier, state={**state, "class_embeddings": embeddings})


def rank_correlations(maps: Floats, others: Floats) -> Floats:
    """Spearman's rank correlation of each pair of maps.

    Args:
        maps, others: [N, S, S].

    Returns:
        [N]: 1 for the same order of pixels; 0 where the other map is even; nan where the first map is even.
    """
    from scipy.stats import rankdata

    found = []
    for a, b in zip(maps, others, strict=True):
        ranks = [rankdata(values.ravel()) for values in (a, b)]
        even = [values.std() == 0 for values in ranks]
        found.append(np.nan if even[0] else 0.0 if even[1] else np.corrcoef(*ranks)[0, 1])
    return np.array(found, dtype=np.float32)


def structural_similarities(maps: Floats, others: Floats) -> Floats:
    """Mean structural similarity (SSIM, Wang et al. 2004, equation 13) of each pair of maps.

    Args:
        maps, others: [N, S, S], values 0..1; windows are Gaussian with σ = 1.5 px.

    Returns:
        [N], 1 for equal maps.
    """
    from scipy.ndimage import gaussian_filter

    def mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(gaussian_filter(values, (0, 1.5, 1.5)))

    a, b = maps.astype(np.float64), others.astype(np.float64)
    ma, mb = mean(a), mean(b)
    va, vb, both = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    ratio = (2 * ma * mb + c1) * (2 * both + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2))
    return np.asarray(ratio.mean(axis=(1, 2)), dtype=np.float32)
