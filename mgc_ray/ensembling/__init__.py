"""From trials to one tested ensemble: selection, the saved artefact, figures."""
