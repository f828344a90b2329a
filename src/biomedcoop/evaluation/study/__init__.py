"""Studies: comparisons of conditions on the same images, draws and seeds; each cell of a study is stored in its own file.

``cells`` defines a cell, ``runner`` computes the missing cells, and ``results`` gives means and paired differences.
"""
