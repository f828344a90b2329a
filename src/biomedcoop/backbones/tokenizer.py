"""Text to token ids, padded to the longest text of the call.

Padding to the context length would give the same features, because of the mask, at many times the cost.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from biomedcoop.backbones.base import VocabularyToken
from biomedcoop.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as RustTokenizer
    from torch import Tensor


def clean(text: str) -> str:
    """HTML entities decoded, runs of white space collapsed (open_clip's cleaning, less its mojibake repair)."""
    return " ".join(html.unescape(html.unescape(text)).split())


CLIP_ENDS = ("<|startoftext|>", "<|endoftext|>")
WORD_END = "</w>"
CLIP_WORD = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
"""CLIP merges bytes within these words only: an English ending, letters, one digit, or other signs."""


class Tokenizer:
    """WordPiece tokenizer of a BERT text tower.

    Args:
        rust: the ``tokenizers`` object that adds [CLS] and [SEP].
        context_length: longer texts are cut to this many tokens, [SEP] kept.
    """

    parts = "vocab.txt"
    """Files that are read where there is no ``tokenizer.json``."""

    def __init__(self, rust: RustTokenizer, context_length: int) -> None:
        rust.no_padding()
        rust.no_truncation()
        self.check(rust)
        rust.enable_truncation(context_length)
        self.rust = rust
        self.context_length = context_length
        self.pad_id = 0
        self.specials = rust.num_special_tokens_to_add(is_pair=False)

    def clean(self, text: str) -> str:
        """The text as it is split into tokens."""
        return clean(text)

    @staticmethod
    def check(rust: RustTokenizer) -> None:
        """Raise a UserError where token ids do not mean what the text tower expects."""
        if rust.id_to_token(0) != "[PAD]":
            raise UserError(f"token 0 is '{rust.id_to_token(0)}', not [PAD]; only the vocabulary of a BERT can be used")

    @staticmethod
    def from_parts(folder: Path) -> RustTokenizer | None:
        """Built from ``vocab.txt`` (with ``do_lower_case`` of ``tokenizer_config.json``); None where that is missing."""
        from tokenizers.implementations.bert_wordpiece import BertWordPieceTokenizer

        vocab, settings = folder / "vocab.txt", folder / "tokenizer_config.json"
        if not vocab.is_file():
            return None
        lower = True
        if settings.is_file():
            lower = bool(json.loads(settings.read_text(encoding="utf-8")).get("do_lower_case", True))
        return BertWordPieceTokenizer(str(vocab), lowercase=lower)._tokenizer

    @classmethod
    def from_directory(cls, folder: Path, context_length: int) -> Tokenizer:
        """Read ``tokenizer.json``, else the files of :meth:`from_parts`.

        Raises:
            UserError: no tokenizer files, files that cannot be read, or those of another kind of text tower.
        """
        from tokenizers import Tokenizer as RustTokenizer

        ready = folder / "tokenizer.json"
        try:
            rust = RustTokenizer.from_file(str(ready)) if ready.is_file() else cls.from_parts(folder)
            if rust is not None:
                return cls(rust, context_length)
        except UserError as error:
            raise UserError(f"{folder}: {error}") from error
        except Exception as error:  # the Rust side raises bare Exception
            raise UserError(f"{folder}: the tokenizer files cannot be read ({error}); download them again") from error
        raise UserError(f"{folder}: no tokenizer.json or {cls.parts}; copy the tokenizer files of the model into it")

    def check_fits(self, rows: int, folder: Path) -> None:
        """Raise a UserError if the tokenizer gives ids for which the weights have no embedding."""
        words = self.rust.get_vocab_size()
        if words > rows:
            raise UserError(
                f"{folder}: the tokenizer knows {words} tokens, the weights {rows}; the files are of two models"
            )

    def ids(self, text: str) -> list[int]:
        """Token ids of one text with its first and last token, cut to the context length."""
        return list(self.rust.encode(self.clean(text)).ids)

    def count(self, text: str) -> int:
        """Number of tokens of the whole text, with its first and last token."""
        encoding = self.rust.encode(self.clean(text))
        return len(encoding.ids) + sum(len(rest.ids) - self.specials for rest in encoding.overflowing)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Token ids int64 [B, L], L the longest of the call, padded with 0."""
        import torch

        rows = [self.ids(text) for text in texts]
        ids = torch.full((len(rows), max(map(len, rows), default=0)), self.pad_id, dtype=torch.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        return ids

    def vocabulary(self) -> list[VocabularyToken]:
        """See :meth:`biomedcoop.backbones.base.Backbone.vocabulary`."""
        special = {number for number, token in self.rust.get_added_tokens_decoder().items() if token.special}
        by_number = sorted((number, token) for token, number in self.rust.get_vocab().items() if number not in special)
        return [entry for number, token in by_number if (entry := self.entry(number, token)) is not None]

    @staticmethod
    def entry(number: int, token: str) -> VocabularyToken | None:
        """The entry of a token as the vocabulary writes it; None for a token that stands for no text."""
        if re.fullmatch(r"\[\w+\]", token):  # [CLS], [unused7]; the sign "[" itself is text
            return None
        return VocabularyToken(number, token, not token.startswith("##"))

    def signature(self) -> str:
        """Everything that decides which ids a text gets, as a string (part of a backbone's fingerprint)."""
        return f"{self.rust.to_str()} {self.context_length}"


class ClipTokenizer(Tokenizer):
    """Byte-pair tokenizer of OpenAI's CLIP (Radford et al. 2021, arXiv 2103.00020).

    Args:
        rust: the ``tokenizers`` object that adds <|startoftext|> and <|endoftext|>.
        context_length: longer texts are cut to this many tokens, <|endoftext|> kept.
    """

    parts = "vocab.json with merges.txt"

    @staticmethod
    def check(rust: RustTokenizer) -> None:
        start, end = (rust.token_to_id(token) for token in CLIP_ENDS)
        if rust.encode("").ids != [start, end]:
            raise UserError(f"no text comes out as {' '.join(CLIP_ENDS)}; only the tokenizer of a CLIP can be used")
        if end != max(rust.get_vocab().values()):
            # the text tower finds the end by it; where it does not hold, a word would be taken for the end
            raise UserError(
                f"{CLIP_ENDS[1]} is not the token of the highest number, as in every CLIP; download the files again"
            )

    @staticmethod
    def entry(number: int, token: str) -> VocabularyToken | None:
        from tokenizers import decoders

        text = decoders.ByteLevel().decode([token.removesuffix(WORD_END)])
        # a part of a letter's bytes cannot be read
        return None if not text.strip() or "\ufffd" in text else VocabularyToken(number, text, token.endswith(WORD_END))

    @staticmethod
    def from_parts(folder: Path) -> RustTokenizer | None:
        """Built from ``vocab.json`` and ``merges.txt``; None where one is missing."""
        from tokenizers import Regex, models, normalizers, pre_tokenizers, processors
        from tokenizers import Tokenizer as RustTokenizer

        vocab, merges = folder / "vocab.json", folder / "merges.txt"
        if not (vocab.is_file() and merges.is_file()):
            return None
        bpe = models.BPE.from_file(str(vocab), str(merges), end_of_word_suffix=WORD_END, unk_token=CLIP_ENDS[1])
        rust = RustTokenizer(bpe)
        rust.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        words = pre_tokenizers.Split(Regex(CLIP_WORD), behavior="removed", invert=True)
        # bytes of UTF-8 as printable signs, the alphabet of the vocabulary; its own rule for words is not CLIP's
        as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        rust.pre_tokenizer = pre_tokenizers.Sequence([words, as_bytes])
        rust.add_special_tokens(list(CLIP_ENDS))
        start, end = ((token, rust.token_to_id(token)) for token in CLIP_ENDS)
        rust.post_processor = processors.TemplateProcessing(
            single=f"{CLIP_ENDS[0]} $A {CLIP_ENDS[1]}", special_tokens=[start, end]
        )
        return rust
