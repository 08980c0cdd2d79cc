"""Search spaces, one file per family of `mgc_ray/models`: `suggest(trial) -> dict` of parameters.

Ordinary Python over Optuna, conditional where parameters depend on each other. Each name is a field
of the family's Config or of TrainConfig, which is checked before a search starts. Every sample is
valid. The defaults lie within the space, as the first trial of a search uses them.
"""
