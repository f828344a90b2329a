"""A package, since other folders have modules of the same names."""
