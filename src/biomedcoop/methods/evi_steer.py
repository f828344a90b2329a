"""Evi-Steer (MICCAI 2026, arXiv 2605.26292): small gated modules steer the tokens of both frozen towers by their evidence.

Before block i ≥ 1 of a tower every token x becomes x + σ(g) · σ(w · c) · W↑μ, where (μ, u) are the halves of W↓x, of r values each,
and α = softplus(u²) + 1 + 10⁻⁶ are parameters of Gamma distributions. The confidence c of a text token is 1 − 1/α. That of an
image token is the combination by Dempster and Shafer of its own masses (1 − 1/α_v, 1/α_v) of belief and uncertainty with those of
the classes, (1 − u, u), where u is the mean over classes of 1/α at the token that the text tower pools:

    c = (1 − u)(1 − 1/α_v) / (1 − k + 10⁻⁶),   k = (1 − 1/α_v) u + (1 − u)/α_v.

Loss: cross-entropy of s · f · t, + λ KL(Gamma(α, 1) ‖ Gamma(1, 1)) = λ ((α − 1) ψ(α) − ln Γ(α)), the mean over values and steered
blocks, of the image tokens and of the pooled text tokens. W↑ = 0 and g = 0 at the start, so training starts from zero-shot.

Block i of the image tower goes with layer i of the text tower, up to the depth of the smaller one: no text says more of a later
block. A convolutional tower is steered before each of its stages, whose positions are the tokens: they are few, and each stage
has one width. The learning rate rises and falls as for the other methods that train through the towers; the published code lets
it oscillate after 400 steps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from biomedcoop.backbones.base import Backbone
from biomedcoop.backbones.changed import changed_fingerprint, unfrozen
from biomedcoop.data.images.crops import Crops
from biomedcoop.errors import UserError
from biomedcoop.lazy import F, torch
from biomedcoop.methods.base import Abilities, State, Task, register
from biomedcoop.methods.class_embeddings import template_embeddings, text_state
from biomedcoop.methods.settings import class_template, setting
from biomedcoop.methods.tower_training import Learner, TowerMethod, TowerSettings, cross_entropies
from biomedcoop.methods.training import drawn_as_linear

if TYPE_CHECKING:
    from torch import Tensor, nn

BLOCK = re.compile(r"(^|\.)(blocks|resblocks|encoder\.layer)\.\d+$|^visual\.layer\d$")
"""Names of the blocks of a transformer, and of the stages of a convolutional tower."""

SMALL = 1e-6

IMAGE, TEXT = "image.", "text."
"""Begin the names of the modules' tensors in a state."""


@dataclass(frozen=True)
class EviSteerSettings(TowerSettings):
    """Settings of :class:`TowerSettings` with the published values, and those of the modules."""

    epochs: int = 100
    lr: float = 7.5e-4
    rank: int = setting(4, "number r of values of evidence for each token", least=1)
    kl_weight: float = setting(1e-4, "weight λ of the divergence from no evidence", least=0)
    template: str = class_template("text of a class")


@register
class EviSteer(TowerMethod):
    name = "evi-steer"
    title = "Evi-Steer"
    paper = "MICCAI 2026, arXiv 2605.26292"
    settings_type = EviSteerSettings
    abilities = Abilities(uses_images=True, retargets=True, changes_towers=True)
    parameters = "modules in both towers: 3r × D + r + 1 for each block"
    learned = (IMAGE, TEXT)
    crops: ClassVar[Crops] = Crops(flip=0.5)

    def check_backbone(self, backbone: Backbone) -> None:
        super().check_backbone(backbone)
        steered_blocks(self.name, backbone)

    def learners(
        self, task: Task, settings: EviSteerSettings, seeds: Sequence[int]
    ) -> Sequence[Callable[[], Steering]]:
        template_embeddings(task.backbone, task.class_names, settings.template)  # refuses names that are too long
        return [partial(Steering, self.name, task.backbone, task.class_names, settings, seed) for seed in seeds]

    def adapted(self, state: State, backbone: Backbone) -> Backbone:
        other = unfrozen(backbone, {})
        blocks, _ = steered_blocks(self.name, other)
        u = state["text_uncertainty"].to(backbone.device)
        if len(u) != len(blocks):
            raise ValueError(f"text_uncertainty has {len(u)} rows, not {len(blocks)}")
        for hook, row in zip(steer(blocks, modules_of(state, IMAGE, blocks, u.shape[1], backbone)), u, strict=True):
            hook.text_uncertainty = row
        tensors = {name: tensor for name, tensor in state.items() if name.startswith(IMAGE)} | {"u": u}
        other.fingerprint = changed_fingerprint(backbone, tensors)
        return other

    def retarget(self, state: State, task: Task, settings: EviSteerSettings) -> State:
        own = unfrozen(task.backbone, {})
        _, layers = steered_blocks(self.name, own)
        rank = state["text_uncertainty"].shape[1]
        texts = Texts(own, task.class_names, settings.template, modules_of(state, TEXT, layers, rank, own))
        template_embeddings(task.backbone, task.class_names, settings.template)  # refuses names that are too long
        with torch.no_grad():
            embeddings, u, _ = texts.encode()
        kept = {name: value for name, value in state.items() if name.startswith((IMAGE, TEXT))}
        return text_state(own, embeddings, text_uncertainty=u, **kept)


def steered_blocks(name: str, backbone: Backbone) -> tuple[list[nn.Module], list[nn.Module]]:
    """For each steered place, the block in front of it: those of the image tower, and as many of the text tower.

    The input of block i is the output of block i − 1, and the last block may be asked for one token alone.

    Raises:
        UserError: a tower is no transformer and has no stages.
    """
    found = {key: module for key, module in backbone.towers.named_modules() if BLOCK.search(key)}
    image = [module for key, module in found.items() if key.startswith("visual.")]
    text = [module for key, module in found.items() if not key.startswith("visual.")]
    n = min(len(image), len(text)) - 1
    if n < 1:
        raise UserError(
            f"{name} steers between the blocks of both towers, and {backbone.name} has {len(image)} of the image tower and "
            f"{len(text)} of the text tower that it knows; use a CLIP or SigLIP, or an open_clip model with a ViT and a BERT"
        )
    return image[:n], text[:n]


def width_of(block: nn.Module) -> int:
    """Width of a block's output; the last vector of every kind of block, a bias, has it."""
    return [parameter for parameter in block.parameters() if parameter.dim() == 1][-1].numel()


class Module(NamedTuple):
    """A steering module: W↓ [2r, D], W↑ [D, r], w [r], and the gate g, a number."""

    down: Tensor
    up: Tensor
    weight: Tensor
    gate: Tensor


def drawn(block: nn.Module, rank: int, generator: torch.Generator) -> Module:
    """The start of the module behind a block."""
    d = width_of(block)
    down, weight = drawn_as_linear((2 * rank, d), d, generator), drawn_as_linear((rank,), rank, generator)
    return Module(down, torch.zeros(d, rank), weight, torch.zeros(()))


def modules_of(
    state: Mapping[str, Tensor], begin: str, blocks: Sequence[nn.Module], rank: int, backbone: Backbone
) -> list[Module]:
    """The modules of one tower in a state.

    Raises:
        KeyError, ValueError: a tensor is missing or has another shape.
    """
    modules = []
    for number, block in enumerate(blocks, start=1):
        d = width_of(block)
        shapes = Module((2 * rank, d), (d, rank), (rank,), ())  # type: ignore[arg-type]
        for part, shape in zip(Module._fields, shapes, strict=True):
            if state[f"{begin}{number}.{part}"].shape != shape:
                raise ValueError(f"{begin}{number}.{part} has not the shape {list(shape)}")
        modules.append(Module(*(state[f"{begin}{number}.{part}"].to(backbone.device) for part in Module._fields)))
    return modules


class Steer:
    """Steers the output of one block, as its forward hook.

    Attributes:
        text_uncertainty: u [r] of the classes; None in a text tower.
        alpha: α of the tokens [..., r] of the last pass; kept in training alone, where passes follow one another.
    """

    text_uncertainty: Tensor | None = None
    alpha: Tensor

    def __init__(self, module: Module, *, keeps: bool) -> None:
        self.module, self.keeps = module, keeps

    def __call__(self, _block: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        """Tokens [B, T, D], or a map [B, D, H, W] -> the same, steered."""
        tokens = output.movedim(1, -1) if output.dim() == 4 else output
        down, up, weight, gate = self.module
        mu, u = F.linear(tokens.to(down.dtype), down).chunk(2, dim=-1)
        alpha = F.softplus(u.square()) + SMALL + 1
        if self.keeps:
            self.alpha = alpha
        confidence = 1 - 1 / alpha
        if self.text_uncertainty is not None:
            confidence = combined(confidence, 1 - self.text_uncertainty)
        strength = gate.sigmoid() * (confidence @ weight).sigmoid()
        change = (strength[..., None] * F.linear(mu, up)).to(tokens.dtype)
        return output + (change.movedim(-1, 1) if output.dim() == 4 else change)


def combined(a: Tensor, b: Tensor) -> Tensor:
    """Belief of two sources with beliefs a and b and uncertainties 1 − a and 1 − b, by Dempster and Shafer."""
    conflict = a * (1 - b) + (1 - a) * b
    return a * b / (1 - conflict + SMALL)


def steer(blocks: Sequence[nn.Module], modules: Sequence[Module], *, keeps: bool = False) -> list[Steer]:
    """Put a module behind each block."""
    hooks = [Steer(module, keeps=keeps) for module in modules]
    for block, hook in zip(blocks, hooks, strict=True):
        block.register_forward_hook(hook)
    return hooks


def divergence(alpha: Tensor) -> Tensor:
    """KL(Gamma(α, 1) ‖ Gamma(1, 1)) of each value."""
    return (alpha - 1) * torch.digamma(alpha) - torch.lgamma(alpha)


class Texts:
    """The class texts and the steered text tower.

    Args:
        backbone: an unfrozen one; its text tower is steered from now on.
    """

    def __init__(
        self, backbone: Backbone, class_names: Sequence[str], template: str, modules: Sequence[Module]
    ) -> None:
        self.backbone = backbone
        ids = backbone.tokenize([template.replace("{}", name) for name in class_names]).to(backbone.device)
        self.words, self.mask = backbone.embed_tokens(ids).detach(), backbone.mask(ids)
        self.pooled = torch.arange(len(ids), device=backbone.device), backbone.pooled_token(self.mask)
        _, layers = steered_blocks("", backbone)
        self.hooks = steer(layers, modules, keeps=True)

    def encode(self) -> tuple[Tensor, Tensor, Tensor]:
        """Class embeddings [C, E] of unit norm, their uncertainty [layers, r], and their divergence, a number."""
        embeddings = self.backbone.encode_text_embeddings(self.words, self.mask).to(self.backbone.learning_dtype)
        alpha = torch.stack([hook.alpha[self.pooled] for hook in self.hooks])  # [layers, C, r]
        return F.normalize(embeddings, dim=-1), (1 / alpha).mean(1), divergence(alpha).mean()


class Steering(Learner):
    """One run."""

    def __init__(
        self, method: str, backbone: Backbone, class_names: Sequence[str], settings: EviSteerSettings, seed: int
    ) -> None:
        self.backbone, self.kl_weight = unfrozen(backbone, {}), settings.kl_weight
        blocks, layers = steered_blocks(method, self.backbone)
        generator = torch.Generator().manual_seed(seed)
        self.modules = {
            begin: [
                Module(*(part.to(backbone.device).requires_grad_() for part in drawn(block, settings.rank, generator)))
                for block in those
            ]
            for begin, those in ((TEXT, layers), (IMAGE, blocks))
        }
        self.groups = [([part for own in self.modules.values() for module in own for part in module], settings.lr)]
        self.texts = Texts(self.backbone, class_names, settings.template, self.modules[TEXT])
        self.hooks = steer(blocks, self.modules[IMAGE], keeps=True)

    def shared(self) -> Sequence[Tensor]:
        """Class embeddings [C, E], their uncertainty [layers, r], and their divergence."""
        return self.texts.encode()

    def losses(self, pixels: Tensor, labels: Tensor, shared: Sequence[Tensor]) -> Tensor:
        embeddings, u, of_texts = shared
        for hook, row in zip(self.hooks, u, strict=True):
            hook.text_uncertainty = row
        features = F.normalize(self.backbone.encode_image(pixels), dim=-1)
        of_images = torch.stack([divergence(hook.alpha).flatten(1).mean(1) for hook in self.hooks]).mean(0)
        losses = cross_entropies(self.backbone.logit_scale * features @ embeddings.T, labels)
        return losses + self.kl_weight * (of_images + of_texts)

    def state(self) -> State:
        with torch.no_grad():
            embeddings, u, _ = self.texts.encode()
        named = {
            f"{begin}{number}.{part}": tensor
            for begin, own in self.modules.items()
            for number, module in enumerate(own, start=1)
            for part, tensor in zip(Module._fields, module, strict=True)
        }
        return text_state(self.backbone, embeddings, text_uncertainty=u, **named)
