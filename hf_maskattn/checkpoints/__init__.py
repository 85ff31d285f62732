"""Checkpoints and run folders: written atomically, verified, and found again."""
