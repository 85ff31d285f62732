"""Checkpoints and the folder of a run: written whole, checked, found again."""
