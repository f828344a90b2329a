"""Scripts behind the numbers in the documentation, run as modules from the root of the repository."""
