"""The benchmark: a protocol file becomes a grid of runs, computed group by group, with one line of JSON for each finished run.

``protocol`` reads what is asked for, ``sources`` finds the datasets, ``plan`` makes the groups, ``compute`` turns a group into
lines, ``journal`` keeps them in the output folder, ``executor`` runs groups in processes, ``prepare`` plans and encodes before,
``estimate`` says what the work will cost, and ``runner`` puts these together. ``results`` reads the folder again, and ``reporting``
writes its tables and figures.
"""
