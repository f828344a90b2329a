"""Tables of any kind: one reader, its columns and labels."""
