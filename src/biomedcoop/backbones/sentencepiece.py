"""SigLIP's tokenizer: canonical text, split by a SentencePiece model (Kudo & Richardson 2018, arXiv 1808.06226).

It is read from ``tokenizer.json``, or from ``spiece.model``, which many checkpoints hold alone.
"""

from __future__ import annotations

import json
import re
import string
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from biomedcoop.backbones.base import VocabularyToken
from biomedcoop.backbones.tokenizer import Tokenizer
from biomedcoop.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as RustTokenizer

END, WORD_START = "</s>", "▁"
UNIGRAM, UNKNOWN, CONTROL = 1, 2, 3
"""Numbers of SentencePiece's format: the model type that can be read, and the types of two pieces that stand for no text."""

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class SentencePieceTokenizer(Tokenizer):
    """Unigram tokenizer of a SigLIP text tower.

    Texts lose case and ASCII punctuation, as in training. They end with </s>, and no token precedes them.

    Attributes:
        lower_case: text is put in lower case.
        end_id: number of </s>.
        trained_pad_id: the token that fills a text up to the context length in training; ``pad_id`` only fills tensors.
    """

    parts = "spiece.model"

    def __init__(self, rust: RustTokenizer, context_length: int) -> None:
        super().__init__(rust, context_length)
        self.lower_case = True
        self.end_id = self.trained_pad_id = int(rust.encode("").ids[0])

    @staticmethod
    def check(rust: RustTokenizer) -> None:
        if rust.encode("").ids != [rust.token_to_id(END)]:
            raise UserError(
                f"no text comes out as something else than {END}; only the tokenizer of a SigLIP can be used"
            )

    @classmethod
    def from_directory(cls, folder: Path, context_length: int) -> SentencePieceTokenizer:
        """Read ``tokenizer.json``, else ``spiece.model``; and ``tokenizer_config.json``, which says what is done to the text.

        Raises:
            UserError: files are missing or cannot be read, or belong to another kind of text tower.
        """
        tokenizer = super().from_directory(folder, context_length)
        assert isinstance(tokenizer, SentencePieceTokenizer)
        path = folder / "tokenizer_config.json"
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
            kind, pad = settings.get("tokenizer_class", "SiglipTokenizer"), settings.get("pad_token", END)
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(f"{path}: cannot be read ({error}); copy the tokenizer files of the model again") from error
        if kind not in ("SiglipTokenizer", "SiglipTokenizerFast"):
            raise UserError(f"{path}: tokenizer_class '{kind}' is not supported, only 'SiglipTokenizer'")
        tokenizer.lower_case = bool(settings.get("do_lower_case", True))
        name = pad["content"] if isinstance(pad, dict) else pad
        number = tokenizer.rust.token_to_id(str(name))
        if number is None:
            raise UserError(f"{path}: pad_token '{name}' is not in the vocabulary; copy the tokenizer files again")
        tokenizer.trained_pad_id = number
        return tokenizer

    def clean(self, text: str) -> str:
        """Lower case, no ASCII punctuation, single spaces (big_vision's canonical text)."""
        text = text.lower() if self.lower_case else text
        return " ".join(text.translate(_NO_PUNCTUATION).replace(WORD_START, " ").split())

    @staticmethod
    def entry(number: int, token: str) -> VocabularyToken | None:
        text = token.replace(WORD_START, "")
        if not text or re.fullmatch(r"<[^<>]+>", token):  # <extra_id_0>; <0x0A>, a byte
            return None
        return VocabularyToken(number, text, token.startswith(WORD_START))

    @staticmethod
    def from_parts(folder: Path) -> RustTokenizer | None:
        """Built from ``spiece.model``; None where it is missing."""
        path = folder / "spiece.model"
        return unigram(path.read_bytes()) if path.is_file() else None

    def signature(self) -> str:
        return f"{super().signature()} lower_case={self.lower_case} pad={self.trained_pad_id}"


def unigram(model: bytes) -> RustTokenizer:
    """A tokenizer that gives the ids of a SentencePiece model of type unigram, with </s> at the end.

    Raises:
        UserError: a model of another type, or without </s>.
        ValueError: damaged content.
    """
    from tokenizers import Regex, models, normalizers, pre_tokenizers, processors
    from tokenizers import Tokenizer as RustTokenizer

    # numbers of the fields: sentencepiece_model.proto, published with SentencePiece
    fields = list(read_message(model))
    pieces = [dict(read_message(value)) for number, value in fields if number == 1 and isinstance(value, bytes)]
    trainer, normalizer = (
        dict(read_message(value)) if isinstance(value := dict(fields).get(number), bytes) else {} for number in (2, 3)
    )
    if trainer.get(3, UNIGRAM) != UNIGRAM:
        raise UserError("the SentencePiece model is not of type unigram, the only one that can be read")
    names = [_text(piece[1]) for piece in pieces]
    scores = [struct.unpack("<f", score)[0] if isinstance(score := piece.get(2), bytes) else 0.0 for piece in pieces]
    kinds = [piece.get(3, 1) for piece in pieces]
    if END not in names or UNKNOWN not in kinds:
        raise UserError(f"the SentencePiece model has no piece {END}, or none for unknown text; it is not of a SigLIP")
    rust = RustTokenizer(
        models.Unigram(list(zip(names, scores, strict=True)), kinds.index(UNKNOWN), byte_fallback=bool(trainer.get(35)))
    )
    steps: list[normalizers.Normalizer] = [normalizers.Replace(Regex(" {2,}"), " ")]
    if charsmap := normalizer.get(2):
        assert isinstance(charsmap, bytes)
        steps.insert(0, normalizers.Precompiled(charsmap))
    rust.normalizer = normalizers.Sequence(steps)
    rust.pre_tokenizer = pre_tokenizers.Metaspace(WORD_START, prepend_scheme="always", split=False)
    rust.add_special_tokens([n for n, kind in zip(names, kinds, strict=True) if kind in (UNKNOWN, CONTROL)])
    rust.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, names.index(END))])
    return rust


def read_message(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Fields of a message in the encoding of Protocol Buffers: their numbers and values, nested messages as bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == 2:
            length, at = _varint(data, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"field type {kind} at byte {at}")
        if at + length > len(data):
            raise ValueError("it ends within a field")
        yield key >> 3, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number at a place of the data, seven bits a byte, and the place behind it."""
    value = shift = 0
    while True:
        if at >= len(data):
            raise ValueError("it ends within a number")
        value |= (data[at] & 0x7F) << shift
        at += 1
        if not data[at - 1] & 0x80:
            return value, at
        shift += 7


def _text(value: int | bytes) -> str:
    if isinstance(value, int):
        raise ValueError("a piece is a number")
    return value.decode("utf-8")
