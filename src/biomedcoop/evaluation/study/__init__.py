"""Studies: conditions compared on the same images, draws and seeds; computed cell by cell, each kept in a file.

``cells`` says what a cell is, ``runner`` computes those that are missing, ``results`` gives means and paired differences.
"""
