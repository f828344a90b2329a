"""Sentences per class: shipped library, user's files, templates, text checks, generation by a language model."""

from biomedcoop.prompts.checks import check_sentences
from biomedcoop.prompts.sentences import Sentences, sentences_for

__all__ = ["Sentences", "check_sentences", "sentences_for"]
