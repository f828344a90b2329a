"""Learned context vectors around the class name (CoOp, Zhou et al. 2022, arXiv 2109.01134), for R runs at once.

The context-learning methods share the code of this module: settings, prompts with learned vectors, training, and new class names.
Each of these methods adds its losses.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from biomedcoop.backbones.base import Backbone, Drop
from biomedcoop.errors import UserError
from biomedcoop.lazy import F, torch
from biomedcoop.methods.base import Method, Progress, State, Task
from biomedcoop.methods.class_embeddings import text_state
from biomedcoop.methods.settings import setting
from biomedcoop.methods.training import Gradients, Losses, OnStep, reporter, schedule_of, sgd, steps_in

if TYPE_CHECKING:
    from torch import Tensor

TEXTS_PER_PASS = 256
"""Maximum number of prompts in one pass of the text tower; several passes encode more prompts, so that memory stays bounded."""

MANY_PASSES = 30
"""Minimum number of passes for which prepacking the text tower pays off; it takes as long as two or three passes and saves a tenth
of each."""

RANDOM_STD = 0.02


@dataclass(frozen=True)
class ContextSettings:
    """Settings of every method that learns a context: the prompt around the class name, and SGD with a cosine over the epochs."""

    n_context: int = setting(
        4, "number M of learned vectors; 0 for one vector for each token of context_words", least=0
    )
    context_init: str = setting(
        "words",
        "initial vectors: words (token embeddings of context_words) or random (normal with standard deviation 0.02)",
        choices=("words", "random"),
    )
    context_words: str = setting(
        "a photo of a", "initial words; random vectors precede them if they have fewer than n_context tokens"
    )
    class_position: str = setting(
        "end",
        "place of the class name: after the context, in its middle or before it",
        choices=("end", "middle", "front"),
    )
    class_suffix: str = setting(
        "", "words between the class name and the full stop, e.g. in the brain; they are not learned"
    )
    class_specific: bool = setting(False, "separate context for each class; new classes are then impossible")
    text_dropout: float = setting(
        0.0,
        "dropout of the text tower in training; 0.1 reproduces the published trainer of BiomedCoOp, which applies it by accident",
        least=0,
        below=1,
    )
    epochs: int = setting(100, "passes over the training images", least=1)
    batch_size: int = setting(32, "images in a training step", least=1)
    lr: float = setting(0.002, "peak of the learning rate, which follows a cosine over the epochs", above=0)
    momentum: float = setting(0.9, "momentum of SGD", least=0, most=1)
    weight_decay: float = setting(5e-4, "weight decay of SGD", least=0, most=1)
    warmup_epochs: int = setting(1, "number of first epochs with a learning rate of 1e-5", least=0)
    max_norm: float = setting(0.0, "maximum norm of the gradient; 0 for no limit", least=0)
    label_smoothing: float = setting(
        0.0, "a, share of the label that the other classes get (CalibPrompt: 0.1); 0 for plain labels", least=0, below=1
    )
    smac_weight: float = setting(
        0.0, "weight of CalibPrompt's SMAC, which keeps mean confidences near class frequencies (published: 1)", least=0
    )
    separation_weight: float = setting(
        0.0, "weight of CalibPrompt's angular separation of the class embeddings (published: 3)", least=0
    )


class ClassPrompts:
    """Token embeddings of "<context> <class name>." for C classes, with a slot for each of the M learned vectors.

    With the name at the end, a prompt is [CLS] · M vectors · name tokens · "." · [SEP]; SigLIP has neither [CLS] nor ".". With the
    name in the middle, half of the vectors follow the name; with the name in front, all of them. The words of ``class_suffix``
    belong to the name. Rows are padded to the longest of the C prompts.

    Attributes:
        n_context: number M of learned vectors.
        fixed: embeddings of the tokens that are not learned, zero elsewhere [C, L, D].
        slots: one at the position of learned vector m, zero elsewhere [C, L, M].
        mask: True for tokens, False for padding, bool [C, L].

    Raises:
        UserError: a prompt does not fit into the backbone's context, or there are more context words than learned vectors.
    """

    def __init__(self, backbone: Backbone, class_names: Sequence[str], settings: ContextSettings) -> None:
        self.backbone, self.settings = backbone, settings
        self.n_context = m = context_size(backbone, settings)
        named = endings(class_names, settings)
        rows = [token_ids(backbone, text) for text in named]
        tokens = backbone.token_counts(named)
        length = m + max(tokens)
        if length > backbone.context_length:
            name = class_names[tokens.index(max(tokens))]
            raise UserError(
                f"class {name[:60]!r} and a context of {m} make {length} tokens, {backbone.name} reads "
                f"{backbone.context_length}; shorten the name or lower n_context"
            )
        with torch.no_grad():
            # made on the CPU and sent once: a GPU would wait for every index
            ids = torch.zeros(len(rows), length, dtype=torch.int64)
            slots = torch.zeros(len(rows), length, m, dtype=backbone.learning_dtype)
            known, mask = (torch.zeros(len(rows), length, dtype=torch.bool) for _ in range(2))
            ahead = {"end": m, "middle": m // 2, "front": 0}[settings.class_position]
            start = tokens_ahead(backbone)
            end = len(token_ids(backbone, ".")) - start  # the full stop, which some tokenizers drop, and the last token
            for c, row in enumerate(rows):
                name_end = ahead + len(row) - end
                learned = [*range(start, start + ahead), *range(name_end, name_end + m - ahead)]
                fixed_places = [i for i in range(len(row) + m) if i not in learned]
                ids[c, fixed_places] = torch.tensor(row)
                known[c, fixed_places] = True
                slots[c, learned, range(m)] = 1
                mask[c, : len(row) + m] = True
            known, self.slots, self.mask = (one.to(backbone.device) for one in (known, slots, mask))
            embedded = backbone.embed_tokens(ids.to(backbone.device)).to(backbone.learning_dtype)
            self.fixed = torch.where(known[:, :, None], embedded, 0.0)

    def initial_context(self, seeds: Sequence[int]) -> Tensor:
        """Initial context vectors of each run: [R, M, D], class-specific [R, C, M, D]."""
        settings, backbone = self.settings, self.backbone
        shape = (len(self.fixed),) * settings.class_specific + (self.n_context, backbone.token_dim)
        random = [RANDOM_STD * torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        context = torch.stack(random).to(backbone.device, backbone.learning_dtype)
        if settings.context_init == "words":
            words = word_ids(backbone, settings.context_words)
            if not 1 <= len(words) <= self.n_context:
                raise UserError(
                    f"context_words {settings.context_words[:60]!r} have {len(words)} tokens, n_context is "
                    f"{self.n_context}; change one of them, or set context_init=random"
                )
            with torch.no_grad():
                ids = torch.tensor([words], device=backbone.device)
                context[..., -len(words) :, :] = backbone.embed_tokens(ids)[0].to(context.dtype)
        return context

    def prepack(self, passes: int) -> None:
        """Prepack the text tower if this number of passes is at least :data:`MANY_PASSES`."""
        if passes >= MANY_PASSES:
            from biomedcoop.backbones.prepack import prepack_text_tower

            self.backbone = prepack_text_tower(self.backbone)

    def encode(self, context: Tensor, drop: Drop | None = None) -> Tensor:
        """Contexts [X, M, D] or, class-specific, [X, C, M, D] -> raw class embeddings [X, C, E]; see :func:`encode_prompts`."""
        return encode_prompts(self.backbone, self.fixed, self.slots, self.mask, context, drop)


def encode_prompts(
    backbone: Backbone, fixed: Tensor, slots: Tensor, mask: Tensor, context: Tensor, drop: Drop | None = None
) -> Tensor:
    """Contexts [X, M, D] or, class-specific, [X, C, M, D] -> raw class embeddings [X, C, E].

    One pass of the text tower encodes up to 256 prompts. More prompts take several passes whose activations are computed again for
    the gradient, so that memory does not grow with the number of prompts. With dropout, one pass encodes all prompts.
    """
    context = context if context.dim() == 4 else context[:, None]
    x, c = len(context), len(fixed)
    per_pass = max(1, TEXTS_PER_PASS // c)

    def encode(part: Tensor) -> Tensor:
        prompts = (fixed + slots @ part).to(backbone.dtype)  # [X', C, L, D]
        out = backbone.encode_text_embeddings(prompts.flatten(0, 1), mask.repeat(len(part), 1), drop)
        return out.to(part.dtype)

    if x <= per_pass or drop is not None:  # a second computation would draw other random numbers
        return encode(context).view(x, c, -1)
    from torch.utils.checkpoint import checkpoint

    parts = [
        checkpoint(encode, part, use_reentrant=False, preserve_rng_state=False)
        for part in torch.split(context, per_pass)
    ]
    return torch.cat(parts).view(x, c, -1)


def context_size(backbone: Backbone, settings: ContextSettings) -> int:
    """Number M of learned vectors.

    Raises:
        UserError: ``n_context`` is 0 and there are no context words.
    """
    size = settings.n_context or len(word_ids(backbone, settings.context_words))
    if not size:
        raise UserError("n_context is 0 and context_words have no token; give words or a number")
    return size


def endings(class_names: Sequence[str], settings: ContextSettings) -> list[str]:
    """The part of each prompt that is not learned: class name, suffix and full stop."""
    suffix = f" {settings.class_suffix}" if settings.class_suffix else ""
    return [f"{name}{suffix}." for name in class_names]


def token_ids(backbone: Backbone, text: str) -> list[int]:
    """Token ids of one text with the special tokens at both ends, truncated to the backbone's context length."""
    ids = backbone.tokenize([text])
    return list(ids[0, : int(backbone.mask(ids).sum())].tolist())


def tokens_ahead(backbone: Backbone) -> int:
    """Number of special tokens ahead of a text: 1 in BERT and CLIP, 0 in SigLIP. One follows the text in all of them."""
    return len(token_ids(backbone, "")) - 1


def word_ids(backbone: Backbone, text: str) -> list[int]:
    """Token ids of one text without the special tokens at its ends."""
    return token_ids(backbone, text)[tokens_ahead(backbone) : -1]


def run_dropout(rate: float, seeds: Sequence[int]) -> Drop | None:
    """Dropout for R runs with adjacent rows per run; each run draws from its own generator. None for a rate of 0."""
    if rate == 0:
        return None
    generators = [torch.Generator().manual_seed(seed + 1) for seed in seeds]  # the seed itself orders the batches

    def drop(x: Tensor) -> Tensor:
        shape = (len(x) // len(generators), *x.shape[1:])
        kept = torch.cat([torch.rand(shape, generator=g) >= rate for g in generators])
        return x * kept.to(x.device) / (1 - rate)

    return drop


Embeddings = Callable[[], "Tensor"]
"""Function that returns the unit-norm class embeddings [R, C, E] of the current contexts."""


class ContextMethod(Method):
    """A method that learns a context; a subclass defines the losses."""

    parameters = "context: M × D"
    learned = ("context",)

    def step_macs(self, task: Task, settings: Any) -> int:
        return text_macs(task, settings)

    @abstractmethod
    def losses(self, task: Task, settings: Any, embeddings: Embeddings) -> Losses:
        """A function of batch indices [R, B] that returns loss terms [R, T]; constants of the losses are computed here, once."""

    def gradients(self, settings: Any) -> Gradients | None:
        """A function that computes gradients from the loss terms; None for the gradient of their sum."""
        return None

    def fit(self, task: Task, settings: Any, seeds: Sequence[int], progress: Progress | None = None) -> list[State]:
        prompts = ClassPrompts(task.backbone, task.class_names, settings)
        context = prompts.initial_context(seeds).requires_grad_()
        steps = steps_in(task.n_images, settings.batch_size, settings.epochs)
        prompts.prepack(steps)
        schedule = schedule_of(task, settings, seeds, settings.warmup_epochs)
        self.train(task, settings, prompts, context, schedule, seeds, reporter(progress, steps))
        with torch.no_grad():
            embeddings = prompts.encode(context)  # [R, C, E]
        return [text_state(task.backbone, t, context=ctx) for t, ctx in zip(embeddings, context, strict=True)]

    def train(
        self,
        task: Task,
        settings: Any,
        prompts: ClassPrompts,
        context: Tensor,
        schedule: Iterable[tuple[Tensor, float]],
        seeds: Sequence[int],
        on_step: OnStep | None = None,
    ) -> None:
        """Train ``context`` in place with the batches and learning rates of ``schedule``."""
        drop = run_dropout(settings.text_dropout, seeds)
        losses = self.losses(task, settings, lambda: F.normalize(prompts.encode(context, drop), dim=-1))
        sgd(
            [context],
            losses,
            schedule,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            max_norm=settings.max_norm,
            gradients=self.gradients(settings),
            on_step=on_step,
            recordable=drop is None,
        )

    def retarget(self, state: State, task: Task, settings: Any) -> State:
        return state_from(prompts_for_new_classes(self.name, task, settings), state["context"])


def state_from(prompts: ClassPrompts, context: Tensor) -> State:
    """The state of these classes with one learned context: [M, D], class-specific [C, M, D]."""
    with torch.no_grad():
        embeddings = prompts.encode(context[None].to(prompts.backbone.device))[0]
    return text_state(prompts.backbone, embeddings, context=context)


def text_macs(task: Task, settings: ContextSettings) -> int:
    """Multiply-adds of one forward and backward pass of all prompts through the text tower."""
    longest = max(task.backbone.token_counts(endings(task.class_names, settings)))
    size = context_size(task.backbone, settings)
    tokens = len(task.class_names) * min(size + longest, task.backbone.context_length)
    return 2 * tokens * task.backbone.text_macs_per_token


def prompts_for_new_classes(method: str, task: Task, settings: ContextSettings) -> ClassPrompts:
    """Prompts of classes that the context was not trained with.

    Raises:
        UserError: the context is class-specific, so new classes have none.
    """
    if settings.class_specific:
        raise UserError(
            f"this {method} classifier has a separate context for each class (class_specific), so a new class has none; "
            "train it with class_specific=false"
        )
    return ClassPrompts(task.backbone, task.class_names, settings)
