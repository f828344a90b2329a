"""Models of the package open_clip by name, ``open_clip:<model>/<pretrained>``: exported once into a folder for our own towers.

open_clip (extra ``open-clip``) fetches the weights and builds the model; its tensors, configuration and vocabulary are written in
open_clip layout. After that, nothing needs the package or the network, and every method works as with any other folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from biomedcoop.errors import UserError

if TYPE_CHECKING:
    from torch import nn

PREFIX = "open_clip:"
EXAMPLE = f"{PREFIX}ViT-B-32/laion2b_s34b_b79k"


def parts(name: str) -> tuple[str, str]:
    """The model and the tag of its weights.

    Raises:
        UserError: another form of name.

    Example:
        >>> parts("open_clip:ViT-B-32/laion2b_s34b_b79k")
        ('ViT-B-32', 'laion2b_s34b_b79k')
    """
    model, slash, tag = name.removeprefix(PREFIX).partition("/")
    if not (model and slash and tag) or "/" in tag or {model, tag} & {".", ".."} or ":" in model:
        raise UserError(f"backbone '{name}' names no model and weights of open_clip; write it as {EXAMPLE}")
    return model, tag


def open_clip(name: str) -> ModuleType:
    """The package that a model needs until it is exported.

    Raises:
        UserError: it is missing or cannot be imported.
    """
    from biomedcoop.backbones.extras import imported

    return imported("open_clip", "open_clip_torch", "open-clip", f"backbone '{name}'")


def export(name: str, folder: Path) -> None:
    """Fetch a model with open_clip and write it to a new folder in open_clip layout.

    Args:
        name: ``open_clip:<model>/<pretrained>``.

    Raises:
        UserError: the package is missing or cannot be imported, it knows no such model or weights, the weights cannot be
            fetched, or the model is of a kind that our towers do not compute.
    """
    from biomedcoop.backbones.checkpoint import WEIGHTS, write_tensors
    from biomedcoop.backbones.open_clip_config import BERT_CONFIG, CONFIG, kind_of
    from biomedcoop.output import new_folder

    model_name, tag = parts(name)
    package = open_clip(name)
    config = package.get_model_config(model_name)
    if config is None:
        raise UserError(f"{name}: open_clip has no model '{model_name}'; see open_clip.list_pretrained()")
    tags = package.list_pretrained_tags_by_model(model_name)
    if tag not in tags:
        raise UserError(f"{name}: open_clip has no weights '{tag}' of {model_name}; it has {', '.join(tags) or 'none'}")
    try:
        kind = kind_of(config)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error
    try:
        model: nn.Module = package.create_model(model_name, pretrained=tag, weights_only=True)
        tokenizer = package.get_tokenizer(model_name)
    # it passes on what its libraries for networks, archives and models raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise UserError(f"{name}: open_clip cannot fetch or build it ({reason}); try again with the network") from error
    # the tag decides it, whatever the configuration of the model says
    quick_gelu = any(type(module).__name__ == "QuickGELU" for module in model.modules())
    preprocess = {**package.get_model_preprocess_cfg(model)}
    described = {"model_cfg": {**config, "quick_gelu": quick_gelu}, "preprocess_cfg": _plain(preprocess)}
    with new_folder(folder, mark=CONFIG) as new:
        (new / CONFIG).write_text(json.dumps(described, indent=1), encoding="utf-8")
        if kind == "clip":
            write_vocabulary(tokenizer, new)
        else:
            tokenizer.save_pretrained(str(new))
            text = model.text.config.to_dict()  # type: ignore[union-attr, operator]
            (new / BERT_CONFIG).write_text(json.dumps(text, indent=1), encoding="utf-8")
        write_tensors(model.state_dict(), new / WEIGHTS[0])


def write_vocabulary(tokenizer: Any, folder: Path) -> None:
    """Write ``vocab.json`` and ``merges.txt`` of open_clip's own tokenizer, with OpenAI's names of the first and last token."""
    from biomedcoop.backbones.tokenizer import CLIP_ENDS

    vocabulary = dict(tokenizer.encoder)
    for number, ours in zip((tokenizer.sot_token_id, tokenizer.eot_token_id), CLIP_ENDS, strict=True):
        del vocabulary[tokenizer.decoder[number]]
        vocabulary[ours] = number
    merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.get)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _plain(preprocess: dict[str, Any]) -> dict[str, Any]:
    """Tuples as lists, as JSON has them."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in preprocess.items()}
