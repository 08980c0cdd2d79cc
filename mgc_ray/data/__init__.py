"""From music to a dataset: track table, split, audio, features, Parquet."""
