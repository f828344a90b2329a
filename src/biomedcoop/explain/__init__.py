"""Explanations of a fitted classifier: what it reads in an image, and what its learned text says."""
