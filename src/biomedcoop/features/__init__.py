"""Image and text features, computed once, stored on disk, reused by every method and run."""
