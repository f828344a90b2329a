"""Class activation maps: weighted sums of the channels A_k of one spatial map of the image tower.

The class score s_c is the classifier's logit of the class less the mean of all logits; so learned text, adapters and linear heads
all count. What raises every logit alike changes no probability, and does not show in a map. The papers take the logit alone, which
shows it; maps of cosine similarities can then be much the same for every class.
"""

from __future__ import annotations

import math
from contextlib import closing

import torch
from torch import Tensor
from torch.nn import functional as F

from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.prepack import prepack_image_tower
from biomedcoop.classifier.classifier import Classifier
from biomedcoop.errors import UserError
from biomedcoop.features.parallel import passes_on_every_core
from biomedcoop.features.passes import image_batch

TOP_CHANNELS = 300
"""Channels that gScoreCAM scores (Chen et al. 2022, section 4)."""


def grad_cam(classifier: Classifier, pixels: Tensor, classes: Tensor, layer: str) -> Tensor:
    """Grad-CAM (Selvaraju et al., ICCV 2017, arXiv 1610.02391, equations 1 and 2).

        α_k = mean over places of ∂s_c / ∂A_k;   map = relu(Σ_k α_k A_k)

    Args:
        pixels: normalised, [B, 3, S, S].
        classes: class of each image, int64 [B].
        layer: name of the layer whose output A is.

    Returns:
        [B, h, w], at least 0.

    Raises:
        UserError: see :func:`channels_of`.
    """
    channels, gradients = channels_of(classifier, pixels, classes, layer)
    return (gradients.mean((2, 3), keepdim=True) * channels).sum(1).relu()


def score_cam(classifier: Classifier, pixels: Tensor, classes: Tensor, layer: str) -> Tensor:
    """Score-CAM (Wang et al., CVPR workshops 2020, arXiv 1910.01279, algorithm 1) on all channels.

        M_k = (A_k − min A_k) / (max A_k − min A_k), at the size of the image
        α = softmax over k of s_c(x ⊙ M_k);   map = relu(Σ_k α_k A_k)

    The score of a blank image, which the paper subtracts from every score, leaves the softmax as it is. Hidden places are 0 after
    normalisation, the mean colour of the backbone's training images. A channel with one value everywhere shows no place and is
    left out. Arguments and result are those of :func:`grad_cam`.
    """
    with torch.no_grad():
        channels = spatial(classifier.backbone.image_activations(pixels, layer)[1], classifier.backbone, layer)
    whole = range(channels.shape[1])
    return _scored(classifier, pixels, classes, channels, [torch.tensor(whole) for _ in pixels])


def gscorecam(classifier: Classifier, pixels: Tensor, classes: Tensor, layer: str) -> Tensor:
    """gScoreCAM (Chen et al., ACCV 2022, section 3): Score-CAM on the channels with the largest mean gradient of the score.

    The 300 channels with the largest α_k of :func:`grad_cam` are kept, or all if there are fewer; the softmax is over these.
    Arguments and result are those of :func:`grad_cam`.
    """
    channels, gradients = channels_of(classifier, pixels, classes, layer)
    top = gradients.mean((2, 3)).topk(min(TOP_CHANNELS, channels.shape[1]), dim=1).indices
    return _scored(classifier, pixels, classes, channels, list(top))


def channels_of(classifier: Classifier, pixels: Tensor, classes: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """The channels of a layer and the gradients of the class scores with respect to them, float32 [B, C, h, w] each.

    Raises:
        UserError: there is no such layer, its output is no map, it has no effect on the features, or no gradients pass.
    """
    backbone = classifier.backbone
    features, output = backbone.image_activations(pixels, layer)
    channels = spatial(output, backbone, layer)
    with torch.enable_grad():
        score = class_scores(classifier, features, classes).sum()
    (found,) = torch.autograd.grad(score, output, retain_graph=True)
    gradients = spatial(found, backbone, layer)
    if not gradients.any():  # the class may have no weights, or the layer no effect
        (found,) = torch.autograd.grad(features.sum(), output)
        if not spatial(found, backbone, layer).any():
            raise UserError(
                f"the places of layer '{layer}' have no effect on the image features of {backbone.name}; "
                f"choose an earlier one{_for_instance(backbone)}"
            )
    return channels, gradients


def class_scores(classifier: Classifier, features: Tensor, classes: Tensor) -> Tensor:
    """Score [B] of one class of each image, from raw features [B, E]; differentiable."""
    logits = classifier.logits(features.float())
    return (logits - logits.mean(1, keepdim=True)).gather(1, classes.to(features.device)[:, None])[:, 0]


def spatial(output: Tensor, backbone: Backbone, layer: str) -> Tensor:
    """The output of a layer as a map float32 [B, C, h, w]; tokens [B, T, C] lose class token and registers.

    Raises:
        UserError: the output has no places.
    """
    output = output.detach().float()
    if output.dim() == 4:
        return output
    if output.dim() == 3:
        tokens = output.shape[1]
        for places in (tokens - 1 - backbone.registers, tokens):
            side = math.isqrt(places)
            if side * side == places > 1:
                return output[:, tokens - places :].transpose(1, 2).reshape(len(output), -1, side, side)
    raise UserError(
        f"layer '{layer}' of {backbone.name} gives no map of places but {list(output.shape[1:])} numbers for each image; "
        f"choose a layer with one{_for_instance(backbone)}"
    )


def _for_instance(backbone: Backbone) -> str:
    return f", for instance '{backbone.map_layer}'" if backbone.map_layer else ""


def _scored(classifier: Classifier, pixels: Tensor, classes: Tensor, channels: Tensor, chosen: list[Tensor]) -> Tensor:
    """The sum of the chosen channels, each weighted by the softmax of the scores of the image seen through it."""
    maps = []
    for image, one, maps_of, numbers in zip(pixels, classes, channels, chosen, strict=True):
        kept = maps_of[numbers.to(maps_of.device)]
        kept = kept[kept.amax((1, 2)) > kept.amin((1, 2))]
        if not len(kept):
            maps.append(maps_of.new_zeros(maps_of.shape[1:]))
            continue
        features = masked_features(classifier.backbone, image, kept)
        with torch.inference_mode():
            weights = class_scores(classifier, features, one.expand(len(features))).softmax(0)
        maps.append((weights[:, None, None] * kept).sum(0).relu())
    return torch.stack(maps)


def masked_features(backbone: Backbone, image: Tensor, masks: Tensor) -> Tensor:
    """Raw features float32 [K, E] of an image [3, S, S] seen through each of K masks [K, h, w], scaled to 0 … 1; batched."""
    prepacked = prepack_image_tower(backbone, image_batch(backbone))

    def encode(part: Tensor) -> Tensor:
        with torch.inference_mode():
            large = resized(part, image.shape[-1])
            low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
            seen = ((large - low) / (high - low)).to(image.dtype)
            return prepacked.encode_image(image * seen[:, None]).float()

    parts = torch.split(masks, image_batch(backbone))
    with closing(passes_on_every_core(encode, parts, backbone.device)) as passes:
        return torch.cat(list(passes))


def resized(maps: Tensor, size: int) -> Tensor:
    """Maps [B, h, w] at [B, size, size], bilinear."""
    return F.interpolate(maps[:, None], (size, size), mode="bilinear", align_corners=False)[:, 0]
