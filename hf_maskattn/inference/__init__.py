"""Predictions and scores from a model folder."""
