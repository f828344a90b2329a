"""Metrics with bootstrap intervals: ``bootstrap`` resamples images, ``metrics`` scores predictions."""
