"""The named backbones: what they are, and where their files come from.

A new backbone of a known family is one entry of ``BACKBONES``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
        return tuple(file.rpartition("/")[2] for source in self.sources for file in source.files)


VIT_FILES = ("config.json", "preprocessor_config.json", "model.safetensors")
"""Files of a ViT in the layout of transformers."""

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
    "dinov2-vit-s-14": Entry(
        "DINOv2 ViT-S/14: image tower alone, trained on 142 million images without texts; for methods that need no text tower",
        (HubFiles("facebook/dinov2-small", VIT_FILES),),
        licence="Apache-2.0",
        megabytes=88,
    ),
    "dinov2-vit-b-14": Entry(
        "DINOv2 ViT-B/14: the same, four times as large",
        (HubFiles("facebook/dinov2-base", VIT_FILES),),
        licence="Apache-2.0",
        megabytes=346,
    ),
}
