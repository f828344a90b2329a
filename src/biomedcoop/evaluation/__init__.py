"""Evaluation: metrics with bootstrap intervals, checks of sentences, and studies that compare conditions on the same images."""
