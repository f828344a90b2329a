"""Tables of a benchmark: what they hold, and their forms in Markdown, LaTeX and CSV."""
