"""Accuracy of methods, recipes, views and words on the collected datasets; one module a page of ``docs/results/``."""
