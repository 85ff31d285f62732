"""Recipes: typed arguments, YAML files, checks and defaults of a training run."""
