"""Sentences for new classes, written by a language model."""
