"""Training: from a recipe to a trained and evaluated model with its card."""
