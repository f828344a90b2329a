"""One image: formats, samples, crops."""
