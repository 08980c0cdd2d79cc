"""From trials to one tested ensemble: refit, calibration, selection, and the saved model."""
