"""Datasets of the catalogue on this machine: download, safe unpacking, and the check of a folder against its split file."""
