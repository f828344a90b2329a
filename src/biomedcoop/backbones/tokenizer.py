"""Text to token ids, padded to the longest text of the call (never to the context length: the mask makes both the same, at a
fraction of the cost)."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from biomedcoop.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as RustTokenizer
    from torch import Tensor


def clean(text: str) -> str:
    """HTML entities decoded, runs of white space collapsed (open_clip's cleaning, less its mojibake repair)."""
    return " ".join(html.unescape(html.unescape(text)).split())


class Tokenizer:
    """WordPiece tokenizer of a BERT text tower.

    Args:
        rust: the ``tokenizers`` object that adds [CLS] and [SEP].
        context_length: longer texts are cut to this many tokens, [SEP] kept.
    """

    def __init__(self, rust: RustTokenizer, context_length: int) -> None:
        if rust.id_to_token(0) != "[PAD]":
            raise UserError(f"token 0 is '{rust.id_to_token(0)}', not [PAD]; only the vocabulary of a BERT can be used")
        rust.no_padding()
        rust.enable_truncation(context_length)
        self.rust = rust
        self.context_length = context_length
        self.pad_id = 0

    @classmethod
    def from_directory(cls, folder: Path, context_length: int) -> Tokenizer:
        """Read ``tokenizer.json``, else ``vocab.txt`` (with ``do_lower_case`` of ``tokenizer_config.json``).

        Raises:
            UserError: neither file is there, or it cannot be read.
        """
        from tokenizers import Tokenizer as RustTokenizer
        from tokenizers.implementations.bert_wordpiece import BertWordPieceTokenizer

        ready, vocab, settings = (folder / n for n in ("tokenizer.json", "vocab.txt", "tokenizer_config.json"))
        try:
            if ready.is_file():
                return cls(RustTokenizer.from_file(str(ready)), context_length)
            if vocab.is_file():
                lower = True
                if settings.is_file():
                    lower = bool(json.loads(settings.read_text(encoding="utf-8")).get("do_lower_case", True))
                return cls(BertWordPieceTokenizer(str(vocab), lowercase=lower)._tokenizer, context_length)
        except UserError as error:
            raise UserError(f"{folder}: {error}") from error
        except Exception as error:  # the Rust side raises bare Exception
            raise UserError(f"{folder}: the tokenizer files cannot be read ({error}); fetch them again") from error
        raise UserError(f"{folder}: no tokenizer.json or vocab.txt; copy the tokenizer files of the model into it")

    def ids(self, text: str) -> list[int]:
        """Token ids of one text with [CLS] and [SEP], cut to the context length."""
        return list(self.rust.encode(clean(text)).ids)

    def count(self, text: str) -> int:
        """Tokens of one text, [CLS] and [SEP] included, as if nothing were cut."""
        encoding = self.rust.encode(clean(text))
        return len(encoding.ids) + sum(len(rest.ids) - 2 for rest in encoding.overflowing)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Token ids int64 [B, L], L the longest of the call, padded with 0."""
        import torch

        rows = [self.ids(text) for text in texts]
        ids = torch.full((len(rows), max(map(len, rows), default=0)), self.pad_id, dtype=torch.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        return ids

    def signature(self) -> str:
        """Everything that decides which ids a text gets, as a string (part of a backbone's fingerprint)."""
        return f"{self.rust.to_str()} {self.context_length}"
