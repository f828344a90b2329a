"""ViT-B/16 and ViT-B/32 in the layout of the hub, at full size, with random weights: equal to what transformers computes."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from backbones.full_clip import PARAMETERS, write_full_clip
from benchmarks.speed.full_size import CLIP_TOKENS
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.clip import ClipBackbone
from biomedcoop.backbones.registry import check_model, check_place
from biomedcoop.errors import UserError

pytestmark = pytest.mark.slow

TEXTS = ["a photo of a blue cyst.", "", "!", "a benign tumor of the kidney, with no mass", "word7 " * 60]


class Twin(NamedTuple):
    """A folder as on the hub, and the features that transformers computes."""

    folder: Path
    image: torch.Tensor
    text: torch.Tensor


def pixels() -> torch.Tensor:
    return torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))


def features_of_transformers(folder: Path, model: Any) -> Twin:
    """Features of ``pixels()`` and ``TEXTS``, the token ids being those of transformers too."""
    from transformers import CLIPTokenizerFast

    ids, merges = json.loads((folder / "vocab.json").read_text()), (folder / "merges.txt").read_text().splitlines()[1:]
    tokenizer = CLIPTokenizerFast(vocab=ids, merges=[tuple(line.split()) for line in merges], model_max_length=77)
    with torch.no_grad():
        image = model.visual_projection(model.vision_model(pixel_values=pixels()).pooler_output)
        rows = [tokenizer(text, truncation=True, return_tensors="pt")["input_ids"] for text in TEXTS]
        text = torch.cat([model.text_projection(model.text_model(input_ids=row).pooler_output) for row in rows])
    return Twin(folder, image, text)


@pytest.fixture(scope="module", params=[16, 32])
def twin(request: pytest.FixtureRequest) -> Iterator[Twin]:
    """ViT-B/16 and ViT-B/32 as the hub holds them; gone afterwards."""
    patch = request.param
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / f"clip-vit-b-{patch}"
        model = write_full_clip(folder, patch)
        yield features_of_transformers(folder, model)


@pytest.fixture(scope="module")
def backbone(twin: Twin) -> ClipBackbone:
    loaded = load_backbone(twin.folder)
    assert isinstance(loaded, ClipBackbone)
    other = {"clip-vit-b-16": "clip-vit-b-32", "clip-vit-b-32": "clip-vit-b-16"}[twin.folder.name]
    check_place(twin.folder.name, twin.folder)
    check_model(twin.folder.name, twin.folder, loaded)
    with pytest.raises(UserError, match="a model of other sizes"):
        check_model(other, twin.folder, loaded)
    return loaded


def test_both_towers_compute_what_transformers_computes(twin: Twin, backbone: ClipBackbone) -> None:
    with torch.no_grad():
        image, text = backbone.encode_image(pixels()), backbone.encode_text(TEXTS)
    print(
        f"largest difference: image {(image - twin.image).abs().max():.1e}, text {(text - twin.text).abs().max():.1e}"
    )
    for ours, theirs in ((image, twin.image), (text, twin.text)):
        assert theirs.abs().max() > 0.5  # else the tolerance would say little
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_sizes(backbone: ClipBackbone) -> None:
    assert (backbone.image_size, backbone.context_length) == (224, 77)
    assert (backbone.embed_dim, backbone.token_dim) == (512, 512)
    assert backbone.logit_scale == pytest.approx(np.exp(2.6592), rel=1e-6)
    assert backbone.towers.text_config.vocab_size == CLIP_TOKENS
    assert sum(p.numel() for p in backbone.towers.parameters()) in PARAMETERS.values()


def test_pubmedclip_as_its_authors_published_it(twin: Twin, backbone: ClipBackbone, tmp_path: Path) -> None:
    """OpenAI's names, half precision, and the tokenizer of ViT-B/32."""
    state = {key: value.half() for key, value in backbone.towers.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "PubMedCLIP_ViT32.pth")
    for file in ("vocab.json", "merges.txt"):
        shutil.copy(twin.folder / file, tmp_path)
    published = load_backbone(tmp_path)
    with torch.no_grad():
        image, text = published.encode_image(pixels()), published.encode_text(TEXTS)
    print(f"of half precision: image {(image - twin.image).abs().max():.1e}, text {(text - twin.text).abs().max():.1e}")
    for ours, theirs in ((image, twin.image), (text, twin.text)):
        torch.testing.assert_close(ours, theirs, atol=0.01, rtol=0)
