"""Sentences per class: shipped library, user's files, templates."""

from biomedcoop.prompts.library import Sentences, sentences_for

__all__ = ["Sentences", "sentences_for"]
