"""What the shipped backbone knows: the tables and figures of ``docs/results/mini.md``."""
