"""Readers of labelled images: class folders, tables, split files, MedMNIST archives."""
