"""Whatever is wrong with a directory is told in one clear line that names it; nothing pickled is executed."""

from __future__ import annotations

import json
import math
import os
import pickle
import random
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from backbones.folders import BIN, WEIGHTS, edit_json, refusal, use_bin
from biomedcoop.backbones import load_backbone
from biomedcoop.backbones.base import Backbone
from biomedcoop.errors import UserError

NORM = "visual.trunk.norm.weight"

State = dict[str, torch.Tensor]


# -- checkpoints that cannot be used


def test_missing_and_unexpected_keys_are_named(folder: Path, state: State) -> None:
    save_file({key: value for key, value in state.items() if key != NORM}, folder / WEIGHTS)
    assert f"lacks '{NORM}'" in refusal(folder)
    save_file({**state, "text.transformer.pooler.dense.weight": torch.ones(2)}, folder / WEIGHTS)
    assert "unexpected 'text.transformer.pooler.dense.weight'" in refusal(folder)
    save_file({**state, **{f"extra.{n}": torch.ones(1) for n in range(5)}}, folder / WEIGHTS)
    assert "unexpected 'extra.0', 'extra.1', 'extra.2' and 2 more" in refusal(folder)


@pytest.mark.parametrize("block", ["visual.trunk.blocks.1.", "text.transformer.encoder.layer.1."])
def test_a_checkpoint_without_its_last_block_is_no_smaller_model(folder: Path, state: State, block: str) -> None:
    save_file({key: value for key, value in state.items() if not key.startswith(block)}, folder / WEIGHTS)
    assert f"lacks '{block}" in refusal(folder)


def test_wrong_shapes_are_named(folder: Path, state: State) -> None:
    told_by = (  # the tensors that sizes are read off, and one other
        *("visual.trunk.patch_embed.proj.weight", "visual.trunk.pos_embed", "visual.trunk.blocks.0.mlp.fc1.weight"),
        *(f"text.transformer.embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")),
        *(
            "text.transformer.encoder.layer.0.intermediate.dense.weight",
            "text.proj.0.weight",
            "visual.head.proj.weight",
        ),
        NORM,
    )
    for key in told_by:
        for wrong in (torch.zeros(()), state[key][None].contiguous(), torch.zeros(0)):
            save_file({**state, key: wrong}, folder / WEIGHTS)
            message = refusal(folder)
            assert f"'{key}'" in message
            assert str(list(wrong.shape)) in message
    narrow = "text.transformer.encoder.layer.1.output.dense.weight"
    save_file({**state, narrow: state[narrow][:, 1:].contiguous()}, folder / WEIGHTS)
    assert f"'{narrow}' has shape [64, 127], expected [64, 128]" in refusal(folder)


def test_large_values_are_not_taken_for_infinite(folder: Path, state: State) -> None:
    save_file({**state, NORM: torch.full_like(state[NORM], 3e38)}, folder / WEIGHTS)
    load_backbone(folder)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(folder: Path, state: State, bad: float) -> None:
    spoilt = state[NORM].clone()
    spoilt[7] = bad
    save_file({**state, NORM: spoilt}, folder / WEIGHTS)
    assert f"'{NORM}' holds values that are not finite" in refusal(folder)


def test_other_senseless_values(folder: Path, state: State) -> None:
    save_file({**state, "logit_scale": torch.tensor(100.0)}, folder / WEIGHTS)
    assert "the exponential of 'logit_scale' is not finite" in refusal(folder)
    save_file({**state, NORM: torch.ones(96, dtype=torch.int64)}, folder / WEIGHTS)
    assert f"'{NORM}' holds torch.int64 values" in refusal(folder)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["safetensors", "bin", "bin before torch 1.6"])
def test_damaged_weights(folder: Path, state: State, kind: str) -> None:
    path = folder / WEIGHTS
    if kind != "safetensors":
        path = use_bin(folder, state, _use_new_zipfile_serialization=kind == "bin")
    whole = path.read_bytes()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 783734177\n"
    for content in (b"", whole[:1], whole[:100], whole[: len(whole) // 2], whole[:-1], b"hello\n" * 99, pointer):
        path.write_bytes(content)
        assert path.name in refusal(folder)
    # flipped bytes where they do most harm: in the header, or in the list of what the archive holds
    choice = random.Random(0)
    for _ in range(40):
        damaged = bytearray(whole)
        for _ in range(5):
            damaged[choice.randrange(600)] ^= choice.randrange(1, 256)
        path.write_bytes(damaged)
        try:
            load_backbone(folder)  # rarely, no harm is done: a flag of the archive that nobody reads
        except UserError as error:
            assert str(folder) in str(error)  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017


class Trap:
    """Pickles to a call of ``open``: unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("archive", [True, False])
def test_pickled_objects_are_refused_and_never_executed(
    folder: Path, state: State, tmp_path: Path, archive: bool
) -> None:
    use_bin(folder, {**state, "harmless": Trap(tmp_path / "sprung")}, _use_new_zipfile_serialization=archive)
    assert "refused, it holds more than tensors" in refusal(folder)
    assert not (tmp_path / "sprung").exists()


def test_the_refusal_of_a_bare_pickle_is_all_that_is_said(folder: Path, tmp_path: Path) -> None:
    next(folder.glob("*.safetensors")).unlink()
    (folder / "open_clip_pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "sprung"), protocol=4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "refused, it holds more than tensors" in refusal(folder)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [[1, 2], {"a": 4.6}, {1: torch.ones(1)}, {"state_dict": [1]}, (torch.ones(3),)])
def test_things_that_are_no_checkpoint(folder: Path, content: object) -> None:
    use_bin(folder, content)
    assert f"{BIN}: is not a checkpoint" in refusal(folder)


def test_a_tensor_alone_is_no_backbone(folder: Path) -> None:
    use_bin(folder, torch.ones(3))
    assert "lacks 'visual.trunk.patch_embed.proj.weight'" in refusal(folder)


# -- directories that cannot be used


def test_missing_files_are_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "is not a backbone: it has no open_clip_config.json" in refusal(tmp_path / "empty")
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").unlink()
    assert "no tokenizer.json or vocab.txt" in refusal(folder)
    (folder / WEIGHTS).unlink()
    assert f"neither {WEIGHTS} nor {BIN}" in refusal(folder)


@pytest.mark.parametrize("content", ["", "{oops", "[1]", "null", "\x00", '{"model_cfg": 1}', '{"model_cfg": {}}'])
def test_configurations_that_are_none(folder: Path, content: str) -> None:
    (folder / "open_clip_config.json").write_text(content)
    refusal(folder)


@pytest.mark.parametrize(
    ("part", "setting", "words"),
    [
        ("vision_cfg", {"timm_pool": "avg"}, "timm_pool 'avg' is not supported"),
        ("vision_cfg", {"timm_proj": "mlp"}, "timm_proj 'mlp' is not supported"),
        ("vision_cfg", {"timm_proj_bias": True}, r"lacks 'visual\.head\.proj\.bias'"),
        ("vision_cfg", {"timm_proj_bias": "yes"}, "timm_proj_bias is 'yes', must be true or false"),
        ("vision_cfg", {"timm_model_name": "efficientnet_b0"}, "of the EfficientNets, only efficientnet_lite0 to 4"),
        ("vision_cfg", {"image_size": 64}, "image_size 64 .* 32 in the weights"),
        ("vision_cfg", {"image_size": [32, 32]}, r"image_size is \[32, 32\]"),
        ("vision_cfg", {"timm_model_kwargs": {"num_heads": 5}}, "width 96 is no multiple of 5 heads"),
        ("vision_cfg", {"timm_model_kwargs": {"num_heads": 0}}, "num_heads is 0"),
        ("vision_cfg", {"timm_model_kwargs": {"depth": "x"}}, "depth is 'x'"),
        ("vision_cfg", {"timm_model_kwargs": {}}, r"lacks 'visual\.trunk\.blocks\.10\."),  # a base model has 12 blocks
        ("vision_cfg", {"timm_model_kwargs": [1]}, "'timm_model_kwargs' is not an object"),
        ("text_cfg", {"hf_pooler_type": "max_pooler"}, "only 'mean_pooler' or 'cls_last_hidden_state_pooler'"),
        ("text_cfg", {"hf_proj_type": "none"}, "hf_proj_type 'none' is not supported, only 'linear' or 'mlp'"),
        ("text_cfg", {"hf_proj_type": "linear"}, r"lacks 'text\.proj\.weight'"),
        ("text_cfg", {"context_length": 257}, "context_length 257 exceeds the 256 positions"),
        ("text_cfg", {"context_length": 2}, "context_length is 2, must be a whole number of at least 3"),
        ("text_cfg", {"context_length": "64"}, "context_length is '64'"),
        ("preprocess_cfg", {"interpolation": "bilinear"}, "interpolation 'bilinear' is not supported"),
        ("preprocess_cfg", {"resize_mode": "squash"}, "resize_mode 'squash' is not supported"),
        ("preprocess_cfg", {"mean": [0.5, 0.5]}, r"mean is \[0\.5, 0\.5\], must be a list of three numbers"),
        ("preprocess_cfg", {"mean": [0.5, 0.5, math.nan]}, "mean holds nan, must be a finite number"),
        ("preprocess_cfg", {"std": [0.5, 0.5, 0]}, "std holds 0, must be a finite number above 0"),
    ],
)
def test_settings_that_cannot_be_used_are_named(folder: Path, part: str, setting: dict, words: str) -> None:
    def change(config: dict) -> None:
        (config if part == "preprocess_cfg" else config["model_cfg"])[part].update(setting)

    edit_json(folder / "open_clip_config.json", change)
    with pytest.raises(UserError, match=words):
        load_backbone(folder)
    refusal(folder)


@pytest.mark.parametrize(
    "setting", [{"hidden_act": "relu"}, {"num_attention_heads": 7}, {"num_hidden_layers": 3}, {"layer_norm_eps": "x"}]
)
def test_settings_of_the_text_tower(folder: Path, setting: dict) -> None:
    edit_json(folder / "config.json", lambda config: config.update(setting))
    refusal(folder)


def test_another_family_is_refused(folder: Path) -> None:
    edit_json(
        folder / "open_clip_config.json", lambda c: c["model_cfg"].update(vision_cfg={"layers": 12, "width": 768})
    )
    assert (
        "only a timm ViT or EfficientNet-Lite with a BERT text tower (BiomedCLIP's kind) or OpenAI's CLIP"
        in refusal(folder)
    )


def test_a_preprocessing_that_is_not_told_is_that_of_openai(folder: Path, tiny: Backbone) -> None:
    edit_json(folder / "open_clip_config.json", lambda config: config.pop("preprocess_cfg"))
    backbone = load_backbone(folder)
    assert (backbone.mean, backbone.std) == (tiny.mean, tiny.std)


def test_tokenizers_that_cannot_be_used(folder: Path) -> None:
    ready, vocabulary = folder / "tokenizer.json", folder / "vocab.txt"
    words = vocabulary.read_text().splitlines()
    ready.write_text("{oops")
    assert "the tokenizer files cannot be read" in refusal(folder)
    ready.unlink()
    vocabulary.write_text("\n".join([*words, "one", "more"]))
    assert "the tokenizer knows 496 tokens, the weights 494" in refusal(folder)
    vocabulary.write_text("\n".join(words[1:] + words[:1]))  # padding is told from words by its number, 0
    assert "token 0 is '[UNK]', not [PAD]" in refusal(folder)
    vocabulary.write_text("[PAD]\nmass\n")
    assert "the tokenizer files cannot be read" in refusal(folder)
    vocabulary.write_bytes(os.urandom(64))
    assert "the tokenizer files cannot be read" in refusal(folder)


def test_vocabulary_alone_gives_the_same_ids(folder: Path, tiny: Backbone, parity: Path) -> None:
    """BiomedCLIP's vocabulary is enough: lower case, accents and punctuation come out as with its ``tokenizer.json``."""
    sentences = json.loads((parity / "prompts.json").read_text())
    texts = [text for lines in sentences.values() for text in lines[:10]]
    texts += [
        "",
        "A PHOTO of a  Cyst.",
        "naïve café—(ménière)",
        "a &lt;b&gt; mass,\n\tright-sided",
        "unheardofword 12.5%",
    ]
    (folder / "tokenizer.json").unlink()
    torch.testing.assert_close(load_backbone(folder).tokenize(texts), tiny.tokenize(texts))
