"""CLIP-SVD (Koleilat et al., TMLR 2026, arXiv 2509.03740): the singular values of both towers' matrices are trained.

Each matrix W = U diag(σ) V of the blocks becomes U diag(σ′) V with trained σ′ (query, key and value of a fused matrix have their
own). In a convolutional image tower the matrices are the 1×1 convolutions. The loss is the cross-entropy of s · f · t with the
class embeddings t of the template. The published learning rates differ by dataset (0.0005 to 0.01); the default lies between.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.changed import put, unfrozen, with_tensors
from biomedcoop.data.images.crops import Crops
from biomedcoop.lazy import F, torch
from biomedcoop.methods.base import Abilities, State, Task, register
from biomedcoop.methods.class_embeddings import template_embeddings, text_state
from biomedcoop.methods.settings import class_template
from biomedcoop.methods.tower_training import Learner, TowerMethod, TowerSettings, cross_entropies
from biomedcoop.threads import torch_threads

if TYPE_CHECKING:
    from torch import Tensor

IN_BLOCK = re.compile(r"\.(?:blocks|layers?|resblocks)\.\d+\.")
FUSED = ("qkv", "in_proj")
"""Parts of the names of matrices that hold those of query, key and value one below the other."""

SIGMA = "sigma."
"""Begins the name of a matrix's singular values in a state."""


@dataclass(frozen=True)
class ClipSvdSettings(TowerSettings):
    """Settings of :class:`TowerSettings` with the published values, and the template."""

    epochs: int = 100
    batch_size: int = 32
    lr: float = 0.002
    template: str = class_template("text of a class")


@register
class ClipSvd(TowerMethod):
    name = "clip-svd"
    title = "CLIP-SVD"
    paper = "Koleilat et al. 2026, arXiv 2509.03740"
    settings_type = ClipSvdSettings
    abilities = Abilities(uses_images=True, retargets=True, changes_towers=True)
    parameters = "singular values of both towers"
    learned = (SIGMA,)
    crops: ClassVar[Crops] = Crops(flip=0.5)

    def learners(
        self, task: Task, settings: ClipSvdSettings, seeds: Sequence[int]
    ) -> Sequence[Callable[[], SingularValues]]:
        template_embeddings(task.backbone, task.class_names, settings.template)  # refuses names that are too long
        return [partial(SingularValues, task.backbone, task.class_names, settings) for _ in seeds]

    def adapted(self, state: State, backbone: Backbone) -> Backbone:
        return with_tensors(backbone, rescaled(backbone, state, image=True))

    def retarget(self, state: State, task: Task, settings: Any) -> State:
        own = with_tensors(task.backbone, rescaled(task.backbone, state, image=False))
        kept = {name: value for name, value in state.items() if name.startswith(SIGMA)}
        return text_state(own, template_embeddings(own, task.class_names, settings.template), **kept)


def matrices(backbone: Backbone) -> list[str]:
    """Names of the matrices that are trained: in the blocks of transformers, and the 1×1 convolutions."""
    return [
        name
        for name, tensor in backbone.original.towers.named_parameters()
        if (tensor.dim() == 2 and IN_BLOCK.search(name)) or (tensor.dim() == 4 and tensor.shape[2:] == (1, 1))
    ]


def parts_of_matrix(name: str, weight: Tensor) -> Tensor:
    """A weight as its matrices [P, m, n], float32: three of a fused one, else one."""
    parts = 3 if any(word in name for word in FUSED) else 1
    return weight.detach().float().reshape(parts, weight.shape[0] // parts, -1)


class Decomposed:
    """A weight W with the singular vectors and values of its matrices."""

    def __init__(self, name: str, weight: Tensor) -> None:
        self.weight = weight.detach()
        self.u, self.sigma, self.v = torch.linalg.svd(parts_of_matrix(name, weight), full_matrices=False)

    def with_sigma(self, sigma: Tensor) -> Tensor:
        """The weight with singular values ``sigma`` [P, K], differentiable; with its own values it is W to the last bit."""
        change: Tensor = (self.u * (sigma - self.sigma)[:, None]) @ self.v
        return self.weight + change.view_as(self.weight).to(self.weight.dtype)


def rescaled(backbone: Backbone, state: Mapping[str, Tensor], *, image: bool) -> dict[str, Tensor]:
    """The trained weights of the image tower or of the text tower by name."""
    weights = dict(backbone.original.towers.named_parameters())
    names = [name for name in matrices(backbone) if name.startswith("visual.") == image]
    # one thread, so that a classifier that is read has the bits of the one that was trained
    with torch_threads(1), torch.no_grad():
        return {
            name: Decomposed(name, weights[name]).with_sigma(state[SIGMA + name].to(backbone.device)) for name in names
        }


class SingularValues(Learner):
    """One run."""

    def __init__(self, backbone: Backbone, class_names: Sequence[str], settings: ClipSvdSettings) -> None:
        weights = dict(backbone.towers.named_parameters())
        with torch_threads(1):  # the same singular vectors as in ``rescaled``
            self.matrices = {name: Decomposed(name, weights[name]) for name in matrices(backbone)}
        self.sigma = {name: one.sigma.clone().requires_grad_() for name, one in self.matrices.items()}
        self.image = [name for name in self.matrices if name.startswith("visual.")]
        self.backbone = unfrozen(backbone, {})
        self.groups = [(list(self.sigma.values()), settings.lr)]
        ids = backbone.tokenize([settings.template.replace("{}", name) for name in class_names]).to(backbone.device)
        self.words, self.mask = backbone.embed_tokens(ids).detach(), backbone.mask(ids)

    def shared(self) -> Sequence[Tensor]:
        """Class embeddings [C, E], and the weights of the image tower."""
        weights = {name: one.with_sigma(self.sigma[name]) for name, one in self.matrices.items()}
        put(self.backbone, {name: weight for name, weight in weights.items() if name not in self.image})
        embeddings = self.backbone.encode_text_embeddings(self.words, self.mask).to(self.backbone.learning_dtype)
        return [F.normalize(embeddings, dim=-1), *(weights[name] for name in self.image)]

    def losses(self, pixels: Tensor, labels: Tensor, shared: Sequence[Tensor]) -> Tensor:
        embeddings, *weights = shared
        put(self.backbone, dict(zip(self.image, weights, strict=True)))
        features = F.normalize(self.backbone.encode_image(pixels), dim=-1)
        return cross_entropies(self.backbone.logit_scale * features @ embeddings.T, labels)

    def state(self) -> State:
        with torch.no_grad():
            embeddings = self.shared()[0]
        return text_state(self.backbone, embeddings, **{SIGMA + name: value for name, value in self.sigma.items()})
