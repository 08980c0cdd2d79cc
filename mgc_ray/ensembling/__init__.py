"""From trials to one tested ensemble: selection on validation tracks, the saved artefact, figures."""
