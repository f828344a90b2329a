"""Ways to run a classifier for others: the server with its web page."""
