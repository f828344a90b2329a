"""What a run tells its reader: terminal tables, ``report.md``, ``metrics.json``, ``predictions.csv`` and the confusion figure."""
