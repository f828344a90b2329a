"""Protocols over many datasets, methods and seeds, and the report of their results."""
