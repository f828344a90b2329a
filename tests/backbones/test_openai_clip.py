"""CLIP from one ``.pth`` file with OpenAI's names of tensors, as PubMedCLIP was first published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from backbones.folders import refusal
from backbones.tiny_clip import (
    CONTEXT,
    RESNET,
    TEXTS,
    VIT,
    State,
    config,
    pixels,
    resnet_state,
    vit_state,
    write,
    write_tokenizer,
)
from biomedcoop.backbones import load_backbone

FILE = "PubMedCLIP_ViT32.pth"
WIDTH = 128  # two heads of 64


def vit() -> State:
    return vit_state(width=WIDTH, text_width=WIDTH)


def write_pth(folder: Path, content: object) -> Path:
    """A folder with the file and the tokenizer, and nothing else."""
    folder.mkdir(exist_ok=True)
    torch.save(content, folder / FILE)
    write_tokenizer(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder of a tiny ViT, as its authors would have saved it, to be spoilt."""
    return write_pth(tmp_path / "pubmedclip", {"epoch": 7, "state_dict": vit(), "optimizer": {"state": {}}})


@pytest.mark.parametrize(("vision", "state"), [(VIT, vit), (RESNET, lambda: resnet_state(text_width=WIDTH))])
def test_what_the_tensors_tell_is_what_a_configuration_would_say(
    vision: dict, state: Callable[[], State], tmp_path: Path
) -> None:
    described = config({**vision, "width": WIDTH} if vision is VIT else vision)
    described["model_cfg"]["vision_cfg"].pop("head_width", None)
    described["model_cfg"]["text_cfg"] = {"width": WIDTH, "heads": 2, "layers": 2, "context_length": CONTEXT}
    twin = load_backbone(write(tmp_path / "open_clip", described, state()))
    backbone = load_backbone(write_pth(tmp_path / "pth", {"state_dict": state()}))
    assert backbone.fingerprint == twin.fingerprint
    assert backbone.context_length == CONTEXT
    torch.testing.assert_close(backbone.encode_image(pixels()), twin.encode_image(pixels()), atol=0, rtol=0)
    torch.testing.assert_close(backbone.encode_text(TEXTS), twin.encode_text(TEXTS), atol=0, rtol=0)


def test_half_precision_and_what_lies_beside_the_tensors(folder: Path, tmp_path: Path) -> None:
    whole = load_backbone(folder)
    bare = load_backbone(write_pth(tmp_path / "bare", vit()))
    assert bare.fingerprint == whole.fingerprint
    half = load_backbone(write_pth(tmp_path / "half", {"state_dict": {k: v.half() for k, v in vit().items()}}))
    assert half.encode_image(pixels()).dtype == half.encode_text(TEXTS).dtype == torch.float32
    torch.testing.assert_close(half.encode_image(pixels()), whole.encode_image(pixels()), atol=0.02, rtol=0.02)
    torch.testing.assert_close(half.encode_text(TEXTS), whole.encode_text(TEXTS), atol=0.02, rtol=0.02)


def test_files_that_cannot_be_used(folder: Path) -> None:
    def saved(content: object) -> str:
        return refusal(write_pth(folder, content))

    assert "the tensors have other names than those of OpenAI's CLIP" in saved(
        {"visual.trunk.cls_token": torch.ones(3)}
    )
    assert "is not a checkpoint (tensors by name)" in saved({"state_dict": [1, 2]})
    assert "lacks 'visual.proj'" in saved({k: v for k, v in vit().items() if k != "visual.proj"})
    assert "has unexpected 'input_resolution'" in saved({**vit(), "input_resolution": torch.tensor(32)})
    assert "'ln_final.bias' has shape [3], expected [128]" in saved({**vit(), "ln_final.bias": torch.ones(3)})
    assert "lacks 'positional_embedding'" in saved({k: v for k, v in vit().items() if k != "positional_embedding"})
    assert "the text tower is 40 wide, which is no multiple of 64" in saved(vit_state())
    assert f"the image tower's width 96 is no multiple of head_width 64 in {FILE}" in saved(
        vit_state(width=96, text_width=WIDTH)
    )
    (folder / "merges.txt").unlink()
    torch.save(vit(), folder / FILE)
    assert "no tokenizer.json or vocab.json with merges.txt" in refusal(folder)
    (folder / "second.pth").write_bytes(b"")
    assert "or one with a single .pth of OpenAI's CLIP" in refusal(folder)


class Trap:
    """Unpickling it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_code_in_the_file_is_refused_and_not_run(folder: Path, tmp_path: Path) -> None:
    content = {"state_dict": vit(), "scheduler": Trap(tmp_path / "sprung")}
    for archive in (True, False):  # the second as torch wrote it before its version 1.6
        torch.save(content, folder / FILE, _use_new_zipfile_serialization=archive)
        assert "refused, it holds more than tensors or is damaged" in refusal(folder)
        assert not (tmp_path / "sprung").exists()
