"""Inspection of models: an audit of padding, attention maps and their plots, and text generation."""
