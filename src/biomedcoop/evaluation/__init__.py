"""How good answers are: metrics with bootstrap intervals, and studies that compare conditions on the same images."""
