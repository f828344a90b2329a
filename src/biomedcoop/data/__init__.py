"""Data in: readers, splits, few-shot sampling, image decoding, the catalogue and the audit. No torch here."""
