"""The benchmark: a protocol file becomes a grid of runs, computed group by group, with one line of JSON for each finished run.

``protocol`` (with ``protocol_keys``) reads what is asked for, ``sources`` finds datasets and backbones, ``plan`` makes the groups, ``compute``
turns a group into lines, ``journal`` keeps them in the output folder, ``executor`` runs groups in processes, ``prepare`` plans and
encodes before, ``estimate`` says what the work will cost, and ``runner`` puts these together.
"""
