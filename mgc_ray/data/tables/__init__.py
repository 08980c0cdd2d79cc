"""Track tables as people have them: CSV, Parquet, well-known data sets, and their paths."""
