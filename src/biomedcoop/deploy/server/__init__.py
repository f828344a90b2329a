"""One process that answers requests with fitted classifiers, and the web page beside it."""
