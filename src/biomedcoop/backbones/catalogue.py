"""The named backbones: what they are, and where their files come from.

A new backbone of a known family is one entry of ``BACKBONES``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

from biomedcoop.hub import endpoint

CONVERTIBLE = (".bin", ".pth", ".pt")
"""Endings of files of tensors that PyTorch has written."""


@dataclass(frozen=True)
class HubFiles:
    """Files of one repository of the Hugging Face hub.

    Attributes:
        repo: repository, "owner/name".
        files: names of the files there; the last path component names them on this machine.
        kind: "model" or "dataset".
        revision: commit of the repository, or a branch.
    """

    repo: str
    files: tuple[str, ...]
    kind: str = "model"
    revision: str = "main"

    @property
    def page(self) -> str:
        """Address of the page that lists the files."""
        return f"{endpoint()}/{'datasets/' if self.kind == 'dataset' else ''}{self.repo}/tree/{self.revision}"


@dataclass(frozen=True)
class Entry:
    """One named backbone.

    Attributes:
        title: a description in a few words.
        sources: where the files come from; empty for the backbone in the package.
        licence: licence of the weights, as their publisher states it.
        megabytes: size of the files, MB; None where it is not known.
    """

    title: str
    sources: tuple[HubFiles, ...] = ()
    licence: str = ""
    megabytes: int | None = field(default=None)

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files on this machine."""
        return tuple(local_name(file) for source in self.sources for file in source.files)


def local_name(file: str) -> str:
    """Name on this machine of a file of the hub, without the folders there."""
    return file.rpartition("/")[2]


def converted_name(file: str) -> str:
    """Name of the safetensors that stand in place of a ``.bin`` or ``.pth``; other files keep their name.

    Example:
        >>> converted_name("pytorch_model.bin"), converted_name("text_encoder.pth")
        ('model.safetensors', 'text_encoder.safetensors')
    """
    if PurePath(file).suffix not in CONVERTIBLE:
        return file
    return PurePath(file).stem.replace("pytorch_model", "model") + ".safetensors"


BACKBONES: Mapping[str, Entry] = {
    "mini": Entry(
        "EfficientNet-Lite0 + MiniLM, trained on for this package with 15,500 images; runs offline, no substitute for BiomedCLIP",
        licence="Apache-2.0 AND CC-BY-SA-4.0",
        megabytes=55,
    ),
    "biomedclip": Entry(
        "BiomedCLIP: ViT-B/16 + PubMedBERT trained on 15 million figure-caption pairs",
        (
            HubFiles(
                "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
                (
                    "open_clip_config.json",
                    "open_clip_pytorch_model.bin",
                    "tokenizer.json",
                    "tokenizer_config.json",
                    "special_tokens_map.json",
                    "vocab.txt",
                ),
            ),
        ),
        licence="MIT",
        megabytes=784,
    ),
}
