"""Sampling: test splits, few-shot draws, and leaks between the splits."""
