"""Masked recurrent attention models for Hugging Face Transformers: a padded token does not exist."""

__version__ = "0.1.0"
