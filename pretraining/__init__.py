"""Training of the shipped backbone, run as a module from the root of the repository."""
