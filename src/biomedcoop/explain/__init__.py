"""Explanations of a fitted classifier: where it looks in an image, what it reads there, and what its learned text says."""
