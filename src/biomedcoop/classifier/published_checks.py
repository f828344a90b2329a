"""Whether a published checkpoint belongs to a backbone and to class names: its copies of frozen tensors are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from biomedcoop.backbones.base import Backbone
from biomedcoop.classifier.published_checkpoint import PublishedCheckpoint
from biomedcoop.data.name_lists import join_names
from biomedcoop.errors import UserError
from biomedcoop.lazy import torch
from biomedcoop.methods.context import token_ids

if TYPE_CHECKING:
    from torch import Tensor

SAME = 1e-3
"""Largest difference between two copies of a word embedding: half precision rounds by less, and words differ by more."""


def check_class_names(
    checkpoint: PublishedCheckpoint, backbone: Backbone, class_names: Sequence[str] | None
) -> tuple[tuple[str, ...], bool]:
    """Compare the word embeddings in a checkpoint with those of the class names.

    Returns:
        The class names, and whether the file could tell.

    Raises:
        UserError: the names, their number or their order are others, the backbone is another one, or no names are given.
    """
    path, stored = checkpoint.path, checkpoint.learner
    if not {"token_prefix", "token_suffix"} <= stored.keys():
        if class_names is None:
            raise UserError(f"{path}: does not hold its class names; give them in label order with --classes")
        return tuple(class_names), False
    first, rest = checkpoint.values("token_prefix"), checkpoint.values("token_suffix")
    d = backbone.token_dim
    if not (
        first.dim() == rest.dim() == 3 and first.shape[1:] == (1, d) and len(first) == len(rest) and rest.shape[2] == d
    ):
        raise UserError(
            f"{path}: 'token_prefix' and 'token_suffix' have the shapes {list(first.shape)} and {list(rest.shape)}, "
            f"which do not fit {backbone.name}; name the backbone that it was trained on with --backbone"
        )
    start = embedded(backbone, token_ids(backbone, "a")[:1])
    if not bool(((first[:, 0] - start).abs() <= SAME).all()):
        raise UserError(
            f"{path}: its word embeddings are not those of {backbone.name}; name the backbone that it was trained on "
            "with --backbone"
        )
    if class_names is None:
        names = read_names(backbone, rest)
        raise UserError(
            f"{path}: give its {len(rest)} class names in label order; in its own words: --classes '{join_names(names)}'"
        )
    if len(class_names) != len(rest):
        raise UserError(
            f"{path}: was trained on {len(rest)} classes ({join_names(read_names(backbone, rest))}), not {len(class_names)}; "
            "name them in label order with --classes"
        )
    for number, name in enumerate(class_names):
        expected = embedded(backbone, token_ids(backbone, f"{name}.")[1:])
        got = rest[number, : len(expected)]
        if got.shape != expected.shape or not bool(((got - expected).abs() <= SAME).all()):
            (words,) = read_names(backbone, rest[number : number + 1])
            raise UserError(
                f"{path}: class {number + 1} was trained as '{words}', not as '{name}'; name the classes "
                "in label order with --classes"
            )
    return tuple(class_names), True


def embedded(backbone: Backbone, ids: Sequence[int]) -> Tensor:
    """Word embeddings [L, D] of token numbers, float32 on the CPU."""
    with torch.no_grad():
        return backbone.embed_tokens(torch.tensor([list(ids)], device=backbone.device))[0].float().cpu()


def read_names(backbone: Backbone, suffixes: Tensor) -> list[str]:
    """The class names whose word embeddings [C, L, D] a checkpoint holds, each up to its full stop.

    The text tower's tokens are lower case, so capital letters of the names are lost.
    """
    tokens = backbone.vocabulary()
    table = embedded(backbone, [token.id for token in tokens])
    pieces = any(token.text.startswith("##") for token in tokens)
    names = []
    for suffix in suffixes:
        words = ""
        for vector in suffix:
            distance, place = (table - vector).abs().amax(1).min(0)
            if (
                float(distance) > SAME or (text := tokens[int(place)].text) == "."
            ):  # special tokens are not in the table
                break
            words += text.removeprefix("##") if text.startswith("##") else f" {text}" if pieces else text
            words += " " if not pieces and tokens[int(place)].whole else ""
        names.append(" ".join(words.split()))
    return names


def tower_note(checkpoint: PublishedCheckpoint, backbone: Backbone) -> str:
    """A sentence on frozen tensors in a checkpoint that differ from the backbone's; empty where all that it holds are the same."""
    own, compared, other, largest = dict(backbone.towers.state_dict()), set(), 0, 0.0
    for key, stored in checkpoint.towers.items():
        name = tower_name(key, own)
        view = (stored.storage.key, stored.offset, stored.shape, stored.stride)
        if name is None or view in compared:  # the same block stands under several keys
            continue
        compared.add(view)
        theirs, ours = checkpoint.archive.tensor(stored).float(), own[name].float().cpu()
        if theirs.shape != ours.shape:
            other, largest = other + 1, float("inf")
        elif not torch.equal(theirs, ours):
            other += 1
            largest = max(largest, float((theirs - ours).abs().max() / ours.abs().max().clamp(min=1e-12)))
    if not other:
        return ""
    return (
        f"{other} of {len(compared)} frozen tensors in the checkpoint differ from those of {backbone.name} (by up to {largest:.2g} "
        f"of a tensor's largest value); predictions here use those of {backbone.name}, so they can differ from the published ones."
    )


def tower_name(key: str, own: Mapping[str, Tensor]) -> str | None:
    """The backbone's name of a frozen tensor in a checkpoint, by the end of its key; None if there is none."""
    image = "image_encoder" in key or "visual" in key
    parts = key.split(".")
    for start in range(len(parts)):
        end = ".".join(parts[start:])
        for before in ("visual.",) if image else ("", "text.", "text.transformer."):
            if before + end in own:
                return before + end
    return None
