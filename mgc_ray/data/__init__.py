"""From music to a dataset: track table, audio, spectrograms, Parquet, the built-in corpus."""
