"""Trials on a cluster: the only package, with serving, that knows Ray."""
