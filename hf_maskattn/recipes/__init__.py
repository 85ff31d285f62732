"""Recipes: what a training run is told, read, checked and completed."""
