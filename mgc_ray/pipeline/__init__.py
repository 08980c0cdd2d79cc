"""Whole jobs as functions; a command (`mgc_ray/NAME.py`) is the command line of one of them."""
