"""Training one configuration: plain PyTorch, no Ray, no Optuna."""
