"""Figures of a benchmark, for print and for readers who are colour-blind."""
