"""What a run tells its reader: terminal tables, ``report.md``, ``metrics.json`` and the confusion-matrix figure."""
