"""``report.html``: one self-contained page for a reader, with pictures and without network access."""
