"""Explanations of a classifier's answers: where in an image the class score comes from."""
