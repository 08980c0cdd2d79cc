"""Finished and running searches as one page that a person would rather read than a log."""
