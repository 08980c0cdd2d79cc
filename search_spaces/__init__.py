"""Search spaces, one file a family of `mgc_ray/models`: `suggest(trial) -> dict` of parameters.

Ordinary Python over Optuna: conditional where that is the truth. Each name is a field of the
family's Config or of TrainConfig (checked before a search starts), each sample is valid, and the
defaults lie within, as the first trial of a search is the family's defaults.
"""
