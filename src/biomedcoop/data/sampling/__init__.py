"""Which images are drawn: splits, shots, and what the parts share."""
