"""Tables: one reader and one writer for CSV, JSON and Parquet."""
