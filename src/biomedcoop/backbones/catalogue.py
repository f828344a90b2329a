"""The named backbones: what they are, and where their files come from.

A new backbone of a known family is one entry of ``BACKBONES``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath

from biomedcoop.errors import UserError
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
        """Address of the page that lists the files: the folder that holds them all, or the repository."""
        folders = {PurePosixPath(file).parent.as_posix() for file in self.files}
        folder = f"/{folders.pop()}" if len(folders) == 1 and folders != {"."} else ""
        return f"{endpoint()}/{'datasets/' if self.kind == 'dataset' else ''}{self.repo}/tree/{self.revision}{folder}"


@dataclass(frozen=True)
class Model:
    """What the weights of a name must be: a folder filled by hand is compared with it.

    Attributes:
        families: layouts in which the model may lie, keys of :data:`biomedcoop.backbones.families.LOADERS`.
        image_size: side of the input, px.
        patch: side of the kernel of the image tower's first convolution, px; in a ViT the side of a patch.
        embed_dim: width of the joint space.
        token_dim: width of the text tower; 0 without one.
    """

    families: tuple[str, ...]
    image_size: int
    patch: int
    embed_dim: int
    token_dim: int

    @property
    def sizes(self) -> str:
        """The sizes in words."""
        text = f", text width {self.token_dim}" if self.token_dim else ", no text tower"
        return f"input {self.image_size} px, first kernel {self.patch} px, joint width {self.embed_dim}{text}"


@dataclass(frozen=True)
class Entry:
    """One named backbone.

    Attributes:
        title: a description in a few words.
        sources: where the files come from; empty for the backbone in the package.
        licence: licence of the weights, as their publisher states it.
        megabytes: size of the files, MB; None where it is not known.
        model: what the weights must be; None if they are not compared.
    """

    title: str
    sources: tuple[HubFiles, ...] = ()
    licence: str = ""
    megabytes: int | None = field(default=None)
    model: Model | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files on this machine."""
        return tuple(local_name(file) for source in self.sources for file in source.files)


def repository(name: str) -> str:
    """The repository, "owner/name", that ``hub:OWNER/NAME`` names.

    Raises:
        UserError: another form of name.

    Example:
        >>> repository("hub:timm/densenet121.ra_in1k")
        'timm/densenet121.ra_in1k'
    """
    repo = name.removeprefix(HUB)
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repo, re.ASCII):
        raise UserError(f"backbone '{name}' names no repository of the hub; write it as hub:OWNER/NAME")
    return repo


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


PMC_CLIP_WEIGHTS = ("image_encoder(resnet50)", "text_encoder", "text_projection_layer")
"""PMC-CLIP's files of weights, without their endings."""

WEIGHTS_ENDINGS = (".safetensors", ".pth")
"""Endings that each of them may have; the first that is there counts."""

BESIDE_CONFIGURATION = ("model.safetensors", "open_clip_model.safetensors")
"""Names of weights that belong beside a configuration."""


def lone_weights(folder: Path, pattern: str = "*") -> Path | None:
    """The only file of weights in a directory, ``.pth`` or what ``convert`` has made of it; None if there is none, or several.

    Args:
        pattern: how the name begins; names that belong beside a configuration do not count.
    """
    found = {path.stem: path for end in reversed(WEIGHTS_ENDINGS) for path in sorted(folder.glob(pattern + end))}
    found = {stem: path for stem, path in found.items() if path.name not in BESIDE_CONFIGURATION}
    return next(iter(found.values())) if len(found) == 1 else None


CLIP_FAMILIES = ("clip-transformers", "clip-openai", "clip")
CLIP_FILES = ("config.json", "pytorch_model.bin", "vocab.json", "merges.txt", "preprocessor_config.json")
"""Files of a CLIP in the layout of transformers."""

VIT_FILES = ("config.json", "preprocessor_config.json", "model.safetensors")
"""Files of a ViT in the layout of transformers."""

HUB = "hub:"
"""Beginning of a name that stands for a repository of the hub, ``hub:OWNER/NAME``."""

ANY_CONFIG = ("open_clip_config.json", "config.json")
ANY_WEIGHTS = (
    *("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
    *("model.safetensors", "pytorch_model.bin"),
)
BESIDE_WEIGHTS = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt"),
    *("spiece.model", "preprocessor_config.json", "processor_config.json"),
)
"""Files that a repository in a known layout may have: configurations, weights (the first counts), and all others."""

ZEROED_PATCHES = "+zeroed-patches"
"""End of a name or folder that asks for the constant tokens of Biomed-DPT; see :mod:`biomedcoop.backbones.zeroed_patches`."""

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
        model=Model(("bert",), 224, 16, 512, 768),
    ),
    "pmc-clip": Entry(
        "PMC-CLIP: ResNet-50 + BiomedBERT trained on 1.6 million figure-caption pairs",
        (
            HubFiles("axiong/pmc_oa", tuple(f"{name}.pth" for name in PMC_CLIP_WEIGHTS), kind="dataset"),
            HubFiles(
                "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
                ("vocab.txt", "tokenizer_config.json", "config.json"),
            ),
        ),
        licence="OpenRAIL AND MIT",
        megabytes=592,
        model=Model(("pmc-clip",), 224, 3, 768, 768),
    ),
    "clip-vit-b-16": Entry(
        "OpenAI's CLIP ViT-B/16, trained on 400 million pairs of images and texts from the internet",
        (HubFiles("openai/clip-vit-base-patch16", CLIP_FILES),),
        licence="the publisher states none",
        megabytes=600,
        model=Model(CLIP_FAMILIES, 224, 16, 512, 512),
    ),
    "clip-vit-b-32": Entry(
        "OpenAI's CLIP ViT-B/32: a quarter of the image tokens of ViT-B/16, so faster",
        (HubFiles("openai/clip-vit-base-patch32", CLIP_FILES),),
        licence="the publisher states none",
        megabytes=607,
        model=Model(CLIP_FAMILIES, 224, 32, 512, 512),
    ),
    "pubmedclip": Entry(
        "PubMedCLIP: OpenAI's ViT-B/32 trained on with radiology images and captions (ROCO)",
        (HubFiles("flaviagiammarino/pubmed-clip-vit-base-patch32", CLIP_FILES),),
        licence="MIT",
        megabytes=607,
        model=Model(CLIP_FAMILIES, 224, 32, 512, 512),
    ),
    "medsiglip": Entry(
        "MedSigLIP: SigLIP-400M trained on for medical images and texts; gated: accept its terms on the hub and log in first",
        (
            HubFiles(
                "google/medsiglip-448",
                (
                    "config.json",
                    "model.safetensors",
                    "preprocessor_config.json",
                    "special_tokens_map.json",
                    "spiece.model",
                    "tokenizer_config.json",
                ),
            ),
        ),
        licence="Health AI Developer Foundations terms of use",
        megabytes=3513,
        model=Model(("siglip",), 448, 14, 1152, 1152),
    ),
    "dinov2-vit-s-14": Entry(
        "DINOv2 ViT-S/14: image tower alone, trained on 142 million images without texts; for methods that need no text tower",
        (HubFiles("facebook/dinov2-small", VIT_FILES),),
        licence="Apache-2.0",
        megabytes=88,
        model=Model(("vit-transformers",), 224, 14, 384, 0),
    ),
    "dinov2-vit-b-14": Entry(
        "DINOv2 ViT-B/14: the same, four times as large",
        (HubFiles("facebook/dinov2-base", VIT_FILES),),
        licence="Apache-2.0",
        megabytes=346,
        model=Model(("vit-transformers",), 224, 14, 768, 0),
    ),
}
